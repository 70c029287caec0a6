//! The Python wheels: builds them, installs them where nothing else is, and runs their tests.
//!
//! The environment is made anew each time, so that what is tested is what the wheels bring. The tools come from the environment that
//! set-up fills.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::process::{output, run};
use crate::progress::Progress;
use crate::project::Project;
use crate::test::with_nats_server;

/// Builds the wheels with this profile of cargo and installs them; returns the Python that has them.
pub(crate) fn install(project: &Project, progress: &Progress, profile: &str) -> Result<PathBuf> {
    let tools = project.venv().join("bin");
    ensure!(tools.join("maturin").is_file(), "failed to find maturin; run `cargo xtask setup`");
    progress.step(&format!("Python wheels, profile {profile}"));
    let wheels = project.wheels();
    if wheels.exists() {
        fs::remove_dir_all(&wheels).with_context(|| format!("failed to remove `{}`", wheels.display()))?;
    }
    let mut maturin = Command::new(tools.join("maturin"));
    project.with_target(maturin.current_dir(project.root()).args(["build", "--profile", profile, "--out"]).arg(&wheels));
    run(&mut maturin)?;
    let mut namespace = pip(&tools.join("python"));
    namespace.args(["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]).arg(&wheels);
    run(namespace.arg(project.root().join("python/codomyrmex-edge")))?;

    let venv = project.wheel_venv();
    run(Command::new(tools.join("python")).args(["-m", "venv", "--clear"]).arg(&venv))?;
    let python = venv.join("bin/python");
    let mut install = pip(&python);
    install.args(["install", "--quiet", "--no-index", "--no-deps"]);
    let built = fs::read_dir(&wheels).with_context(|| format!("failed to read `{}`", wheels.display()))?;
    for wheel in built {
        install.arg(wheel?.path());
    }
    run(&mut install)?;
    Ok(python)
}

fn pip(python: &Path) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input"]);
    pip
}

/// Runs the tests of the wheels; `binary` is the daemon that the tests of the client start.
pub(crate) fn test(project: &Project, progress: &Progress, binary: &Path) -> Result<()> {
    let python = install(project, progress, "dev")?;
    progress.step("tests of the Python package");
    let list = "import sysconfig; print(sysconfig.get_path('purelib'))";
    let tools = output(Command::new(project.venv().join("bin/python")).args(["-c", list]))?;
    let mut pytest = Command::new(python);
    // Not in the repository's folder, where the package's sources are.
    pytest.current_dir(project.root().join("python/tests")).args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
    pytest.env("PYTHONPATH", tools.trim()).env("PYTHONDONTWRITEBYTECODE", "1").env("EDGEWARD_BINARY", binary);
    run(with_nats_server(project, &mut pytest))
}
