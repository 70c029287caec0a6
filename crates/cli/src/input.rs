//! What a command takes in: a text, a file or standard input, within a bound.

use std::{
    io::{self, Read},
    path::PathBuf,
};

use anyhow::Context as _;
use bytes::Bytes;
use edgeward::{EdgeError, ErrorKind};

/// Where the input comes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Input {
    Text(String),
    File(PathBuf),
    Stdin,
}

impl Input {
    /// A file by its path, or standard input by `-`.
    #[expect(clippy::unnecessary_wraps, reason = "clap's value parsers may fail")]
    pub(crate) fn of_path(path: &str) -> Result<Self, EdgeError> {
        Ok(if path == "-" { Self::Stdin } else { Self::File(path.into()) })
    }

    /// A text, a file by `@` and its path, or standard input by `-`.
    #[expect(clippy::unnecessary_wraps, reason = "clap's value parsers may fail")]
    pub(crate) fn of_data(text: &str) -> Result<Self, EdgeError> {
        Ok(match text.strip_prefix('@') {
            Some(path) => Self::File(path.into()),
            None if text == "-" => Self::Stdin,
            None => Self::Text(text.to_owned()),
        })
    }

    /// Everything of it, or the error that it is larger than `bytes_max`.
    pub(crate) fn read(self, bytes_max: usize) -> anyhow::Result<Bytes> {
        match self {
            Self::Text(text) => bounded(text.as_bytes(), bytes_max)?.context("failed to read a text"),
            Self::File(path) => {
                let failed = || format!("failed to read the input `{}`", path.display());
                bounded(std::fs::File::open(&path).with_context(failed)?, bytes_max)?.with_context(failed)
            }
            Self::Stdin => bounded(io::stdin().lock(), bytes_max)?.context("failed to read standard input"),
        }
    }
}

fn bounded(source: impl Read, bytes_max: usize) -> Result<io::Result<Bytes>, EdgeError> {
    let mut bytes = Vec::new();
    let read = source.take(bytes_max as u64 + 1).read_to_end(&mut bytes);
    if bytes.len() > bytes_max {
        return Err(EdgeError::new(ErrorKind::TooLarge, format!("the input is larger than {bytes_max} bytes")));
    }
    Ok(read.map(|_| bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_file_unless_it_is_a_dash() {
        assert_eq!(Input::of_path("-").expect("never refused"), Input::Stdin);
        assert_eq!(Input::of_path("./-").expect("never refused"), Input::File("./-".into()));
    }

    #[test]
    fn data_is_a_text_a_file_or_standard_input() {
        let parse = |text: &str| Input::of_data(text).expect("never refused");
        assert_eq!(parse("-"), Input::Stdin);
        assert_eq!(parse("-1"), Input::Text("-1".to_owned()));
        assert_eq!(parse("@a.csv"), Input::File("a.csv".into()));
        assert_eq!(parse(""), Input::Text(String::new()));
    }

    #[test]
    fn input_past_the_bound_is_refused_before_it_is_sent() {
        assert_eq!(bounded(io::repeat(0), 1 << 20).expect_err("endless").kind(), ErrorKind::TooLarge);
        assert_eq!(bounded(&b"abc"[..], 3).expect("small").expect("read"), "abc");
        assert!(Input::Text("abcd".to_owned()).read(3).is_err());
        let error = Input::File("/nonexistent".into()).read(3).expect_err("absent");
        assert!(error.to_string().contains("`/nonexistent`"));
    }
}
