//! What is said when something is put for a function that is not there: it may come later, or its name may be a slip.

use edgeward::ErrorKind;

use crate::{
    client::{Client, Error},
    terminal,
};

/// A line about a function that a node does not have, or that no node of a hub is to have; none when it is there, or is not known to be missing.
pub(super) async fn told(client: &Client, function: &str, is_hub: bool) -> Option<String> {
    // A hub assigns functions, and deploys them.
    let (what, paths) = if is_hub { ("fleet", &["functions", "deployments"][..]) } else { ("node", &["functions"][..]) };
    for path in paths {
        match client.get(format!("/v1/{path}/{function}")).await {
            Err(Error::Refused(problem)) if problem.kind == ErrorKind::NotFound => {}
            _ => return None,
        }
    }
    let note = format!("note: this {what} has no function `{function}` yet; `edgeward functions` lists what there is");
    Some(terminal::printable(&note).into_owned() + "\n")
}
