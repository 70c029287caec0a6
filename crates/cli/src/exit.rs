//! How the binary ends: its exit code and what it says about an error.
//!
//! Scripts depend on the codes: a code never changes its meaning, and each kind of error has exactly one.

use std::{borrow::Cow, fmt::Write as _, io::Write as _, process::ExitCode};

use bytes::Bytes;
use edgeward::{EdgeError, ErrorKind, Failure};

use crate::{
    client,
    terminal::{Palette, Style, printable},
};

/// The exit codes, for the help of the binary.
pub(crate) const HELP: &str = "\
Exit codes:
   0  done                           8  the artifact was refused
   1  any other failure              9  a value is not valid
   2  wrong usage                   10  the node cannot be reached
   3  not found                     11  larger than its bound
   4  the function timed out        12  in use, or changed meanwhile
   5  the function failed           13  starting, stopping, or disk full
   6  memory limit                  14  not allowed
   7  overloaded, try again later   15  not authenticated
  16  an experiment did not hold    17  an experiment does not tell

Environment:
  EDGEWARD_SERVER  the node to talk to, like --server
  EDGEWARD_TOKEN   the token to show the node; --token-file FILE reads it from a file
  EDGEWARD_CA      the authority to trust, like --ca
  EDGEWARD_LOG     what to trace to standard error, such as `debug` or `edgeward=debug,warn`
  NO_COLOR         when set, nothing is coloured

Start with `edgeward demo`, or with `edgeward up` and `edgeward deploy --help`.";

/// Exit code of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Success = 0,
    Failure = 1,
    Usage = 2,
    NotFound = 3,
    Timeout = 4,
    ExecutionFailed = 5,
    MemoryLimit = 6,
    Overloaded = 7,
    RefusedArtifact = 8,
    InvalidInput = 9,
    Unreachable = 10,
    TooLarge = 11,
    Conflict = 12,
    Unavailable = 13,
    Forbidden = 14,
    Unauthenticated = 15,
    Broken = 16,
    Inconclusive = 17,
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Timeout => Self::Timeout,
            ErrorKind::ExecutionFailed => Self::ExecutionFailed,
            ErrorKind::MemoryLimit => Self::MemoryLimit,
            ErrorKind::Overloaded => Self::Overloaded,
            ErrorKind::RefusedArtifact => Self::RefusedArtifact,
            ErrorKind::InvalidInput => Self::InvalidInput,
            ErrorKind::TooLarge => Self::TooLarge,
            ErrorKind::Conflict => Self::Conflict,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::Internal => Self::Failure,
            ErrorKind::Forbidden => Self::Forbidden,
            ErrorKind::Unauthenticated => Self::Unauthenticated,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What a person can do about an error of this kind. What it is about is how its message begins.
fn hint(kind: ErrorKind, message: &str) -> Option<&'static str> {
    let of_document = message.starts_with("document");
    match kind {
        ErrorKind::NotFound if of_document => {
            Some("`edgeward state list` lists the documents, `edgeward state get NAME` shows the keys of one")
        }
        ErrorKind::NotFound if message.starts_with("conflict") => Some("`edgeward state conflicts NAME` lists those of a document"),
        ErrorKind::NotFound if message.starts_with("trusted key") => Some("`edgeward trust list` lists those of the fleet"),
        ErrorKind::NotFound if message.starts_with("experiment") => Some("`edgeward chaos list` lists those that the hub keeps"),
        ErrorKind::NotFound if message.starts_with("trigger") => Some("`edgeward triggers list` lists them"),
        ErrorKind::NotFound if message.starts_with("dead letter") => Some("`edgeward topics dead-letters` lists them"),
        ErrorKind::NotFound if message.starts_with("token") => Some("`edgeward token list` lists them"),
        ErrorKind::NotFound if message.starts_with("schedule") => Some("`edgeward schedules` lists what runs by itself"),
        ErrorKind::NotFound if message.starts_with("node not found") => Some("`edgeward nodes` lists those of the fleet"),
        ErrorKind::InvalidInput if message.starts_with("say for whom") => Some("a hub needs `--node ID` or `--all`"),
        ErrorKind::InvalidInput if message.starts_with("say on which node") || message.starts_with("say of which node") => {
            Some("a hub needs `--node ID`")
        }
        ErrorKind::InvalidInput if message.starts_with("the topic") || message.starts_with("the filter") => {
            Some("levels are separated by `/`, such as `site/berlin/temp`; in a filter `+` stands for one and a last `#` for the rest")
        }
        ErrorKind::NotFound if message.starts_with("function") => Some("`edgeward functions` lists what is deployed"),
        ErrorKind::Timeout => Some("deploy it with a longer `--timeout-seconds` if it needs the time"),
        ErrorKind::ExecutionFailed => Some("`edgeward logs ID` shows what the function printed"),
        ErrorKind::MemoryLimit => Some("deploy it with a larger `--memory-mb` if it needs the memory"),
        ErrorKind::Overloaded if message.starts_with("the node") => Some("try again later"),
        ErrorKind::Overloaded => Some("try again later, or deploy it with a larger `--max-concurrency` or `--max-queue`"),
        ErrorKind::RefusedArtifact
            if message.starts_with("the signature") || (message.starts_with("function") && message.contains("signed")) =>
        {
            Some("`edgeward sign --help` shows how an artifact is signed and checked")
        }
        ErrorKind::RefusedArtifact => Some("`edgeward doctor` shows which guest toolchains are installed here"),
        ErrorKind::Conflict if of_document => {
            Some("`edgeward state get NAME --json` has the present version and checksum, which are the ETag")
        }
        ErrorKind::Unauthenticated => {
            Some("give a token by EDGEWARD_TOKEN or `--token-file FILE`; an admin makes one with `edgeward token create`")
        }
        ErrorKind::Conflict if message.contains("last trusted key") => Some("`--allow-unsigned` removes it all the same"),
        ErrorKind::Conflict if message.starts_with("trigger") => Some("`edgeward triggers show ID` has the present ETag"),
        ErrorKind::Conflict if message.starts_with("deployment") => Some("`edgeward deployments show ID` has the present generation"),
        ErrorKind::Conflict if message.starts_with("schedule") && message.contains("generation") => {
            Some("`edgeward schedules show ID` has the present generation")
        }
        ErrorKind::Conflict if message.contains("generation") => Some("`edgeward functions show ID` has the present generation"),
        ErrorKind::Unavailable if message.contains("its lease") => {
            Some("`edgeward deployments show ID`, asked of the hub, names the node that has it")
        }
        ErrorKind::Unavailable => Some("try again in a moment; `edgeward status` shows who was asked"),
        ErrorKind::Internal => Some("the log of the node has the details"),
        // Of what else is missing, an artifact or a handler, the message says what to do.
        ErrorKind::NotFound | ErrorKind::InvalidInput | ErrorKind::TooLarge | ErrorKind::Forbidden | ErrorKind::Conflict => None,
    }
}

/// An error of this machine, and what a person can do about it.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(crate) struct Hinted {
    #[source]
    error: EdgeError,
    hint: Cow<'static, str>,
}

impl Hinted {
    /// Adds the hint.
    pub(crate) fn new(error: EdgeError, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { error, hint: hint.into() }
    }
}

/// An error as it is told: to people as lines, to programs as a problem in JSON.
#[derive(Debug)]
pub(crate) struct Report {
    /// The code that the process ends with.
    pub(crate) exit: Exit,
    kind: &'static str,
    message: String,
    causes: Vec<String>,
    failure: Failure,
    /// What a person can do about it.
    pub(crate) hint: Option<Cow<'static, str>>,
    /// The problem as the node sent it.
    problem: Option<Bytes>,
}

impl Report {
    /// Finds out what `error` is about.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        let mut report = Self {
            exit: Exit::Failure,
            kind: ErrorKind::Internal.as_str(),
            message: error.to_string(),
            causes: error.chain().skip(1).map(ToString::to_string).collect(),
            failure: Failure::default(),
            hint: None,
            problem: None,
        };
        if let Some(error) = error.downcast_ref::<client::Error>() {
            report.tell_client_error(error);
        } else if let Some(error) = error.chain().find_map(|cause| cause.downcast_ref::<EdgeError>()) {
            report.exit = error.kind().into();
            report.kind = error.kind().as_str();
            report.failure = error.failure().clone();
        }
        if let Some(error) = error.downcast_ref::<Hinted>() {
            report.hint = Some(error.hint.clone());
        }
        let message = report.message.clone();
        report.causes.retain(|cause| !cause.is_empty() && !message.contains(cause.as_str()));
        // Some errors of libraries repeat their cause.
        report.causes.dedup();
        report
    }

    fn tell_client_error(&mut self, error: &client::Error) {
        match error {
            client::Error::Refused(problem) => {
                self.exit = problem.kind.into();
                self.kind = problem.kind.as_str();
                self.causes.clone_from(&problem.causes);
                self.failure = problem.failure.clone();
                self.hint = hint(problem.kind, &self.message).map(Cow::from);
                self.problem = Some(problem.bytes.clone());
            }
            client::Error::Unreachable { .. } | client::Error::Silent { .. } => {
                self.exit = Exit::Unreachable;
                self.kind = "unreachable";
                self.hint = Some("is the node running? start it with `edgeward up`, or give `--server URL`".into());
            }
            client::Error::Untrusted { hint, .. } => {
                self.exit = Exit::Unreachable;
                self.kind = "unreachable";
                self.hint = Some((*hint).into());
            }
            client::Error::Local(error) => {
                self.exit = error.kind().into();
                self.kind = error.kind().as_str();
            }
            client::Error::Broken { .. } => {
                self.exit = Exit::Unreachable;
                self.kind = "unreachable";
                self.hint = Some("the node may have stopped, or takes `https://` only; `edgeward status` asks it".into());
            }
            client::Error::Foreign { .. } => {
                self.hint = Some("is this an Edgeward node of the same version? `edgeward doctor` compares them".into());
            }
        }
    }

    /// Tells it on standard error.
    pub(crate) fn write(&self, json: bool) {
        let text = if json { self.json() } else { self.text(Palette::stderr()) };
        // Nobody is left to tell when standard error is closed.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    fn text(&self, palette: Palette) -> String {
        let mut text = format!("{} {}\n", palette.paint(Style::Error, "error:"), indented(&self.message, "    "));
        let mut line = |line: &str| writeln!(text, "{line}").expect("writing to a String cannot fail");
        for cause in &self.causes {
            line(&format!("  caused by: {}", indented(cause, "    ")));
        }
        if let Some(status) = self.failure.status {
            line(&format!("  it answered with status {status}"));
        }
        if let Some(exit_code) = self.failure.exit_code {
            line(&format!("  it ended with exit code {exit_code}"));
        }
        if !self.failure.stderr_tail.is_empty() {
            line("  the end of its standard error:");
            for printed in self.failure.stderr_tail.lines() {
                line(&format!("    {}", palette.paint(Style::Faint, &printable(printed))));
            }
        }
        if let Some(hint) = &self.hint {
            line(&format!("{} {hint}", palette.paint(Style::Note, "hint:")));
        }
        text
    }

    fn json(&self) -> String {
        if let Some(problem) = &self.problem {
            return format!("{}\n", String::from_utf8_lossy(problem).trim_end());
        }
        let problem = serde_json::json!({
            "type": "about:blank",
            "title": self.kind.replace('_', " "),
            "detail": self.message,
            "kind": self.kind,
            "causes": self.causes,
        });
        format!("{problem}\n")
    }
}

/// Several lines with all but the first moved to the right, each printable.
fn indented(text: &str, indent: &str) -> String {
    let lines: Vec<_> = text.trim_end().lines().map(printable).collect();
    lines.join(&format!("\n{indent}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::client::Problem;

    fn refused(json: &str) -> anyhow::Error {
        client::Error::Refused(Box::new(Problem::read(500, Bytes::copy_from_slice(json.as_bytes())).expect("a problem"))).into()
    }

    #[test]
    fn every_kind_of_error_has_its_own_exit_code_and_the_help_names_it() {
        let codes: BTreeSet<u8> = ErrorKind::ALL.into_iter().map(|kind| Exit::from(kind) as u8).collect();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
        assert!(!codes.contains(&(Exit::Success as u8)) && !codes.contains(&(Exit::Usage as u8)));
        assert!(!codes.contains(&(Exit::Unreachable as u8)));
        for code in 0..=15 {
            assert!(HELP.contains(&format!(" {code}  ")), "{code}");
        }
    }

    #[test]
    fn exit_codes_keep_their_documented_numbers() {
        let numbers = [3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 1, 14, 15];
        assert_eq!(ErrorKind::ALL.map(|kind| Exit::from(kind) as u8), numbers);
        assert_eq!(Exit::Unreachable as u8, 10);
    }

    #[test]
    fn a_failed_invocation_is_told_with_its_causes_its_standard_error_and_a_hint() {
        let report = Report::of(&refused(
            r#"{"title":"execution failed","detail":"function `a` failed","kind":"execution_failed",
                "failure":{"status":500,"stderr_tail":"one\n\u001b[2Jtwo\n"},"causes":["it trapped\n0: main\n","it trapped\n0: main\n"]}"#,
        ));
        assert_eq!(report.exit, Exit::ExecutionFailed);
        assert_eq!(
            report.text(Palette::plain()),
            "error: function `a` failed\n  caused by: it trapped\n    0: main\n  it answered with status 500\n  the end of its standard error:\n    \
             one\n    \\u{1b}[2Jtwo\nhint: `edgeward logs ID` shows what the function printed\n"
        );
        assert!(report.json().starts_with(r#"{"title":"execution failed""#), "{}", report.json());
    }

    #[test]
    fn what_is_missing_or_has_changed_is_looked_for_where_it_belongs() {
        let hint = |detail: &str| Report::of(&refused(&format!(r#"{{"title":"t","detail":"{detail}","kind":"not_found"}}"#))).hint;
        assert!(hint("function not found: `a`").is_some_and(|hint| hint.contains("edgeward functions")));
        assert_eq!(hint("artifact not found: `sha256:…`; upload it first"), None);
        assert!(hint("document not found: `cellar`").is_some_and(|hint| hint.contains("edgeward state list")));
        let changed = |message| super::hint(ErrorKind::Conflict, message);
        assert!(changed("function `a` is at generation 2, not 1").is_some_and(|hint| hint.contains("functions show")));
        assert_eq!(changed("the key `ed25519:00` is trusted already"), None);
        assert!(changed("`ed25519:00` is the last trusted key").is_some_and(|hint| hint.contains("--allow-unsigned")));
        let refused = |message| super::hint(ErrorKind::RefusedArtifact, message);
        assert!(refused("function `a` is not signed").is_some_and(|hint| hint.contains("edgeward sign")));
        assert!(refused("artifact `a` is refused: it has a signature").is_some_and(|hint| hint.contains("doctor")));
        assert!(changed("document `a` is at version 2, not 1").is_some_and(|hint| hint.contains("state get")));
    }

    #[test]
    fn a_kind_that_this_version_does_not_know_is_a_plain_failure() {
        let report = Report::of(&refused(r#"{"title":"t","detail":"new","kind":"from_the_future"}"#));
        assert_eq!((report.exit, report.message.as_str()), (Exit::Failure, "new"));
    }

    #[test]
    fn an_error_of_this_machine_keeps_its_kind_below_a_context() {
        let error = anyhow::Error::from(EdgeError::new(ErrorKind::TooLarge, "too large")).context("failed to read `x`");
        let report = Report::of(&error);
        assert_eq!((report.exit, report.kind), (Exit::TooLarge, "too_large"));
        assert_eq!(report.text(Palette::plain()), "error: failed to read `x`\n  caused by: too large\n");
        assert!(report.json().contains(r#""kind":"too_large""#));
    }

    #[test]
    fn a_hint_comes_with_the_error_of_this_machine_that_it_is_about() {
        let error = EdgeError::new(ErrorKind::Conflict, "in use").with_source(std::io::Error::other("why"));
        let report = Report::of(&Hinted::new(error, "stop it").into());
        assert_eq!((report.exit, report.kind), (Exit::Conflict, "conflict"));
        assert_eq!(report.text(Palette::plain()), "error: in use\n  caused by: why\nhint: stop it\n");
    }
}
