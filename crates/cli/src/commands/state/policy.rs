//! `edgeward state policy`: how concurrent values of a document become one.

use std::collections::BTreeMap;

use edgeward::{DocumentName, Policy};
use http::{HeaderValue, Method, header::CONTENT_TYPE};

use super::{escaped, path};
use crate::{
    client::{Client, Policies, Request},
    terminal::{self, Palette, Table},
};

const EXAMPLES: &str = "\
Examples:
  edgeward state policy cellar                          # which there are
  edgeward state policy cellar keep_both                # of the document
  edgeward state policy cellar counter --prefix visits/ # of the keys that begin so
  edgeward state policy cellar --prefix visits/ --remove

Policies: last_writer_wins, first_writer_wins, max, min, version_wins, counter, set, keep_both,
hub_wins, edge_wins, hub_owned, edge_owned and edge_owned:NODE. The longest prefix holds; where
there is none, the last writer wins. Only a hub sets a policy, or a node without a hub.";

/// Show the policies of a document, or set one
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The document
    name: DocumentName,
    /// The policy that is set
    policy: Option<Policy>,
    /// Only of the keys that begin so
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Remove the policy
    #[arg(long, conflicts_with = "policy")]
    remove: bool,
}

pub(super) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let Args { name, policy, prefix, remove } = args;
    let path = format!("{}/policy", path(name, None));
    let prefix = prefix.as_deref();
    let request = match policy {
        Some(policy) => {
            let body = serde_json::json!({ "policy": policy.to_string(), "prefix": prefix.unwrap_or_default() });
            Request::new(Method::PUT, path).header(CONTENT_TYPE, HeaderValue::from_static("application/json")).payload(body.to_string())
        }
        None if *remove => Request::new(Method::DELETE, format!("{path}?prefix={}", escaped(prefix.unwrap_or_default()))),
        None => return show(client, path, prefix, json).await,
    };
    client.send(request).await?;
    if json {
        let told =
            serde_json::json!({ "name": name, "prefix": prefix.unwrap_or_default(), "policy": policy.as_ref().map(Policy::to_string) });
        terminal::write_json(told.to_string().as_bytes())?;
        return Ok(());
    }
    let of = match prefix {
        Some(prefix) if !prefix.is_empty() => format!("keys of {name} with the prefix {}", terminal::printable(prefix)),
        _ => name.to_string(),
    };
    terminal::write(match policy {
        Some(policy) => format!("the policy of {of} is {policy}\n"),
        None => format!("removed the policy of {of}\n"),
    })?;
    Ok(())
}

async fn show(client: &Client, path: String, prefix: Option<&str>, json: bool) -> anyhow::Result<()> {
    let answer = client.get(path).await?.json().await?;
    if json && prefix.is_none() {
        terminal::write_json(answer.bytes())?;
        return Ok(());
    }
    let Policies { mut policies } = answer.read()?;
    if let Some(prefix) = prefix {
        policies.retain(|known, _| known == prefix);
    }
    if json {
        terminal::write_json(serde_json::json!({ "policies": policies }).to_string().as_bytes())?;
    } else {
        terminal::write(shown(&policies, Palette::stdout()))?;
    }
    Ok(())
}

fn shown(policies: &BTreeMap<String, String>, palette: Palette) -> String {
    if policies.is_empty() {
        return "there is no policy, so the last writer wins; `edgeward state policy --help` shows how to set one\n".to_owned();
    }
    let mut table = Table::new(&["PREFIX", "POLICY"]);
    for (prefix, policy) in policies {
        let prefix = if prefix.is_empty() { "(document)" } else { prefix };
        table.row(vec![prefix.into(), policy.into()]);
    }
    table.render(palette)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_listed_one_a_line() {
        let json = r#"{"policies":{"":"keep_both","visits/":"counter"}}"#;
        let Policies { policies } = serde_json::from_str(json).expect("of the API");
        assert_eq!(shown(&policies, Palette::plain()), "PREFIX      POLICY\n(document)  keep_both\nvisits/     counter\n");
        assert!(shown(&BTreeMap::new(), Palette::plain()).contains("last writer wins"));
    }

    #[test]
    fn the_help_names_every_policy() {
        let refused = "other".parse::<Policy>().expect_err("no policy").to_string();
        let (_, names) = refused.split_once("there are ").expect("it lists them");
        for name in names.split([' ', ',']).filter(|name| name.contains('_') || matches!(*name, "max" | "min" | "counter" | "set")) {
            assert!(EXAMPLES.contains(name), "{name}");
        }
    }
}
