//! The compiler for functions in JavaScript, in the user's cache.
//!
//! Only `cargo xtask setup --js` installs it: it is large, and no test needs it.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{find, run};
use crate::progress::Progress;
use crate::project::Project;

const PACKAGE: &str = "@bytecodealliance/componentize-js";
const VERSION: &str = "0.23.0";

pub(crate) fn install(project: &Project, progress: &Progress) -> Result<()> {
    let folder = project.npm();
    let manifest = folder.join("node_modules").join(PACKAGE).join("package.json");
    if fs::read_to_string(&manifest).is_ok_and(|text| is_version(&text, VERSION)) {
        return Ok(());
    }
    progress.step(&format!("set-up: npm package {PACKAGE}@{VERSION}"));
    if find("npm").is_none() {
        bail!("failed to find npm; install Node.js with npm and run again");
    }
    // Without the folder npm would look for a project further up.
    fs::create_dir_all(&folder).with_context(|| format!("failed to create `{}`", folder.display()))?;
    run(Command::new("npm")
        .args(["install", "--silent", "--no-audit", "--no-fund", "--save-exact", "--prefix"])
        .arg(&folder)
        .arg(format!("{PACKAGE}@{VERSION}")))
}

/// Whether npm's manifest of a package carries this version.
fn is_version(manifest: &str, version: &str) -> bool {
    let wanted = format!(r#""version":"{version}""#);
    manifest.split_whitespace().collect::<String>().contains(&wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_however_the_manifest_is_laid_out() {
        assert!(is_version("{\n  \"version\": \"0.23.0\",\n", VERSION));
        assert!(is_version(r#"{"name":"a","version":"0.23.0"}"#, VERSION));
    }

    #[test]
    fn another_version_that_begins_alike_is_not_taken() {
        assert!(!is_version(r#"{"version": "0.23.01"}"#, VERSION));
    }
}
