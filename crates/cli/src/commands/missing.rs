//! What is said when something is put for a function that is not there: it may come later, or its name may be a slip.

use edgeward::ErrorKind;

use crate::{
    client::{Client, Error},
    terminal,
};

/// A line about a function that a node does not have, or of which a hub has no deployment; none when it is there, or is not known to be.
pub(super) async fn told(client: &Client, function: &str, is_hub: bool) -> Option<String> {
    let (path, what) =
        if is_hub { ("deployments", "this fleet has no deployment of function") } else { ("functions", "this node has no function") };
    match client.get(format!("/v1/{path}/{function}")).await {
        Err(Error::Refused(problem)) if problem.kind == ErrorKind::NotFound => {
            Some(terminal::printable(&format!("note: {what} `{function}` yet; `edgeward {path}` lists what there is")).into_owned() + "\n")
        }
        _ => None,
    }
}
