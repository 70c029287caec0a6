//! `edgeward trust`: whose signatures the nodes of a fleet trust. The hub is asked.

use edgeward::PublicKey;
use http::{HeaderValue, Method, header::CONTENT_TYPE};

use crate::{
    api::hub::trusted_keys::TrustedKeyBody,
    client::{Client, Request, TrustedKeys},
    terminal::{self, Palette, Table},
};

const EXAMPLES: &str = "\
Examples:
  edgeward sign keygen --out release.key > release.pub
  edgeward trust add \"$(cat release.pub)\" --name 'release machine'
  edgeward trust list
  edgeward trust remove ed25519:…

With the first key every node of the fleet runs signed artifacts only, and stops what is not. A node
that was started with --trusted-key trusts its own keys alone, whatever the hub says.";

/// Say whose signatures the nodes of a fleet trust
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Trust a key
    Add {
        /// The public key, as `edgeward sign keygen` prints it
        key: PublicKey,
        /// A name for people
        #[arg(long, default_value = "")]
        name: String,
    },
    /// List the keys
    List,
    /// Trust a key no more: nodes stop what it signed
    Remove {
        /// The public key
        key: PublicKey,
        /// Remove it also when it is the last one, after which everything may run unsigned
        #[arg(long)]
        allow_unsigned: bool,
    },
}

/// Runs the command.
pub(crate) async fn run(args: Args, client: &Client, json: bool) -> anyhow::Result<()> {
    match args.action {
        Action::Add { key, name } => {
            let request = Request::new(Method::POST, "/v1/trusted-keys")
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .payload(serde_json::to_vec(&TrustedKeyBody { key, name })?);
            let answer = client.send(request).await?.json().await?;
            if json {
                terminal::write_json(answer.bytes())?;
            } else {
                terminal::write(format!("the nodes of the fleet trust {key}\n"))?;
            }
        }
        Action::List => {
            let answer = client.get("/v1/trusted-keys").await?.json().await?;
            if json {
                terminal::write_json(answer.bytes())?;
            } else {
                terminal::write(shown(&answer.read()?, Palette::stdout()))?;
            }
        }
        Action::Remove { key, allow_unsigned } => {
            let query = if allow_unsigned { "?allow_unsigned=true" } else { "" };
            client.send(Request::new(Method::DELETE, format!("/v1/trusted-keys/{key}{query}"))).await?;
            if json {
                terminal::write_json(serde_json::json!({ "key": key, "removed": true }).to_string().as_bytes())?;
            } else {
                terminal::write(format!("the nodes of the fleet trust {key} no more\n"))?;
            }
        }
    }
    Ok(())
}

fn shown(TrustedKeys { keys }: &TrustedKeys, palette: Palette) -> String {
    if keys.is_empty() {
        return "no key is trusted, so nothing need be signed; `edgeward trust --help` shows how to begin\n".to_owned();
    }
    let mut table = Table::new(&["KEY", "ADDED", "NAME"]);
    for key in keys {
        table.row(vec![key.key.to_string().into(), format!("{:.0}", key.added_at).into(), key.name.as_str().into()]);
    }
    table.render(palette)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_listed_one_a_line() {
        let key = format!("ed25519:{}", "0a".repeat(32));
        let json = format!(r#"{{"keys":[{{"key":"{key}","name":"release","added_at":"2026-01-02T03:04:05.6Z"}}]}}"#);
        let keys = serde_json::from_str(&json).expect("of the API");
        assert!(shown(&keys, Palette::plain()).ends_with(&format!("{key}  2026-01-02T03:04:05Z  release\n")));
        assert!(shown(&TrustedKeys { keys: Vec::new() }, Palette::plain()).contains("nothing need be signed"));
    }
}
