//! `edgeward new`: a folder with a function that builds and deploys as it is.

use std::path::PathBuf;

use edgeward::FunctionId;

use crate::{language::Language, project::template, terminal};

/// Make a project: a folder with a function, how it is built, and its `edgeward.toml`.
///
/// The folder must be empty or not there; nothing is overwritten. Its README.md says what its language needs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  edgeward new hello --lang rust
  edgeward new hello --lang python --path functions/hello

Then, in the folder:
  edgeward build
  edgeward deploy
  edgeward invoke hello --data ada")]
pub(crate) struct Args {
    /// Names the function; the last part of its URL
    name: FunctionId,
    /// The language that it is written in
    #[arg(long, value_enum)]
    lang: Language,
    /// The folder to make [default: the name]
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let Args { name: id, lang, path } = args;
    let folder = path.unwrap_or_else(|| id.as_str().into());
    let files = template::create(&folder, &id, lang)?;
    let shown = folder.display();
    if json {
        let made = serde_json::json!({ "id": id, "folder": shown.to_string(), "files": files });
        terminal::write_json(made.to_string().as_bytes())?;
    } else {
        let files = files.join(", ");
        terminal::write(format!(
            "made {shown}: {files}\nnow: cd {shown}, edgeward build, and with a node (`edgeward up`) edgeward deploy\n"
        ))?;
    }
    Ok(())
}
