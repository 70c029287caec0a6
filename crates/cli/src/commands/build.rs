//! `edgeward build`: runs the build commands of a project, and sees that the artifact is there.

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context;
use edgeward::{EdgeError, ErrorKind};

use crate::{
    artifact::Artifact,
    exit::Hinted,
    language::Language,
    project::{FILE_NAME, Project},
    terminal::{self, size},
};

/// What a shell ends with when a program is not there.
const NOT_FOUND: i32 = 127;

/// Build the function of a project by the command in its `edgeward.toml`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  edgeward build
  edgeward build ../visits && edgeward deploy ../visits

What the command prints goes to standard error.")]
pub(crate) struct Args {
    /// The folder of the project
    #[arg(default_value = ".", value_name = "DIR")]
    folder: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &Args, json: bool) -> anyhow::Result<()> {
    let project = Project::at(&args.folder)?
        .ok_or_else(|| EdgeError::invalid(format!("`{}` is not the folder of a project", args.folder.display())))?;
    let file = project.file.display();
    let Some(build) = &project.build else {
        let message = format!("`{file}` says not how the function is built; write `build.command`, or deploy what is built elsewhere");
        return Err(EdgeError::invalid(message).into());
    };
    let workdir = build.workdir.as_ref().map_or_else(|| project.folder.clone(), |workdir| project.folder.join(workdir));
    for command in build.commands.each() {
        execute(command, &workdir)?;
    }
    let Artifact::File(artifact) = &project.source else { return Ok(()) };
    let metadata = std::fs::metadata(artifact).ok().filter(std::fs::Metadata::is_file).ok_or_else(|| {
        let message = format!("the build ended well, and the `source` of `{file}`, `{}`, is not there", artifact.display());
        EdgeError::invalid(message)
    })?;
    let (path, bytes) = (artifact.display().to_string(), metadata.len());
    if json {
        terminal::write_json(serde_json::json!({ "artifact": path, "bytes": bytes }).to_string().as_bytes())?;
    } else {
        terminal::write(format!("built {path}, {}\n", size(bytes)))?;
    }
    Ok(())
}

fn execute(command: &str, workdir: &Path) -> anyhow::Result<()> {
    let failed = || format!("failed to run `{command}` in `{}`", workdir.display());
    // Standard output is for what this command has to say.
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().with_context(failed)?;
    let status = Command::new("sh")
        .args(["-c", command])
        .current_dir(workdir)
        .stdin(Stdio::null())
        .stdout(Stdio::from(stderr))
        .status()
        .with_context(failed)?;
    if status.success() {
        return Ok(());
    }
    if status.code() == Some(NOT_FOUND) {
        let hint = Language::of_command(command).map_or("`edgeward doctor` shows which tools are here", Language::hint);
        let error = EdgeError::new(ErrorKind::Internal, format!("{}: a program that it needs is not there", failed()));
        return Err(Hinted::new(error, hint).into());
    }
    Err(EdgeError::new(ErrorKind::Internal, format!("{}: {status}; the command is of `{FILE_NAME}`", failed())).into())
}
