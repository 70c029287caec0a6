//! The compilers of guest languages. All are optional: a node runs what was built elsewhere.
//!
//! Looked for where `functions/build.sh` looks: on the search path, then in the cache folder of the project.

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use super::Check;
use crate::language::Language;

/// Longest wait for a tool to say what it can do.
const TOOL_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks for each toolchain.
pub(super) async fn checks() -> Vec<Check> {
    let folders = folders();
    vec![
        check("rust guests", rust(&folders).await, Language::Rust),
        check("c guests", clang(&folders).await, Language::C),
        check("python guests", find(&folders, &["componentize-py"]), Language::Python),
        check("javascript guests", find(&folders, &["componentize-js"]), Language::Js),
    ]
}

fn check(name: &'static str, found: Option<PathBuf>, language: Language) -> Check {
    match found {
        Some(path) => Check::ok(name, path.display().to_string()),
        None => Check::warn(name, "not found (optional)", language.hint()),
    }
}

/// The compiler, when it has a standard library for the target.
async fn rust(folders: &[PathBuf]) -> Option<PathBuf> {
    let rustc = find(folders, &["rustc"])?;
    let libraries = output(&rustc, &["--print", "target-libdir", "--target", "wasm32-wasip2"]).await?;
    let mut names = std::fs::read_dir(libraries.trim()).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.any(|name| name.starts_with("libstd-")).then_some(rustc)
}

/// The compiler, when it can write WebAssembly.
async fn clang(folders: &[PathBuf]) -> Option<PathBuf> {
    let clang = find(folders, &["clang", "clang-22"])?;
    output(&clang, &["--print-targets"]).await?.contains("wasm32").then_some(clang)
}

fn folders() -> Vec<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    let own = cache.into_iter().flat_map(|cache| ["venv/bin", "npm/node_modules/.bin"].map(|folder| cache.join("edgeward").join(folder)));
    env::split_paths(&env::var_os("PATH").unwrap_or_default()).chain(own).collect()
}

/// The first program of these names. It is not run: some take seconds to start.
fn find(folders: &[PathBuf], names: &[&str]) -> Option<PathBuf> {
    names.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file()))
}

/// What a tool prints; `None` when it fails or takes too long.
async fn output(program: &Path, arguments: &[&str]) -> Option<String> {
    let run = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(TOOL_TIMEOUT, run).await.ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tool_that_is_missing_or_fails_has_no_output() {
        let sh = find(&folders(), &["no-such-tool-of-edgeward", "sh"]).expect("every system has one");
        assert_eq!(output(&sh, &["-c", "echo here"]).await.as_deref(), Some("here\n"));
        assert_eq!(output(&sh, &["-c", "exit 1"]).await, None);
        assert_eq!(output(Path::new("/nonexistent"), &[]).await, None);
        assert_eq!(find(&folders(), &["no-such-tool-of-edgeward"]), None);
    }
}
