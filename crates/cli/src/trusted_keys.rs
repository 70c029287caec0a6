//! The option `--trusted-key`: public keys, or files of them.

use std::{collections::BTreeSet, path::PathBuf};

use edgeward::{EdgeError, PublicKey, limits::SIGNING_FILE_BYTES_MAX};

use crate::input::Input;

/// The keys that are given by themselves or in files, which have one on each line; empty lines and those that begin with `#` say nothing.
pub(crate) fn read(given: &[String]) -> anyhow::Result<BTreeSet<PublicKey>> {
    let mut keys = BTreeSet::new();
    for text in given {
        if text.contains(':') && !text.contains('/') {
            keys.insert(text.parse()?);
            continue;
        }
        let bytes = Input::File(PathBuf::from(text)).read(SIGNING_FILE_BYTES_MAX)?;
        let content = String::from_utf8_lossy(&bytes);
        let lines = content.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let found = lines.map(str::parse).collect::<Result<Vec<PublicKey>, EdgeError>>();
        let found = found.map_err(|error| EdgeError::invalid(format!("the file `{text}` has a line that is no key")).with_source(error))?;
        if found.is_empty() {
            // Without a key nothing would be refused, which is not what was asked for.
            return Err(EdgeError::invalid(format!("there is no key in the file `{text}`")).into());
        }
        keys.extend(found);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_given_by_themselves_and_in_files() {
        let folder = tempfile::tempdir().expect("temp folder");
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).expect("written");
            path.display().to_string()
        };
        let key = |digits: &str| format!("ed25519:{}", digits.repeat(32));
        let several = file("several", &format!("# of the release machine\n{}\n\n  {}  \n", key("0a"), key("0b")));
        let keys = read(&[key("0c"), several, key("0a")]).expect("valid");
        assert_eq!(keys.iter().map(ToString::to_string).collect::<Vec<_>>(), [key("0a"), key("0b"), key("0c")]);
        assert!(read(&[]).expect("none").is_empty());
        for (bad, why) in [
            (file("empty", "# none\n"), "there is no key"),
            (file("pem", "-----BEGIN PUBLIC KEY-----\n"), "a line that is no key"),
            ("ed25519:12".to_owned(), "64 hexadecimal digits"),
            ("/nonexistent".to_owned(), "`/nonexistent`"),
        ] {
            assert!(format!("{:#}", read(std::slice::from_ref(&bad)).expect_err(&bad)).contains(why), "{bad}");
        }
    }
}
