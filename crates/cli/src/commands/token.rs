//! `edgeward token`: who may call the API of a node.
//!
//! The node is asked; or, while it does not run, its data folder is changed, as nobody may call before there is a token.

use std::{path::PathBuf, str::FromStr};

use bytes::Bytes;
use edgeward::{
    EdgeError, ErrorKind, NodeId, TokenName, TopicFilter,
    access::{Role, StoppedNode, TopicRights},
    limits::TOKEN_SECONDS_MAX,
};
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use jiff::{Span, SpanRelativeTo, Timestamp};

use crate::{
    api::tokens::{CreatedAnswer, TokenBody, TokensAnswer},
    client::{Client, CreatedToken, Request, TokenTopics, Tokens},
    exit::Hinted,
    terminal::{self, Palette, Table},
};

const EXAMPLES: &str = "\
Examples:
  edgeward token create ops --role admin --data-dir /var/lib/edgeward  # the node is stopped
  edgeward token create ci --role deployer --expires 30d > ci.token    # by the node
  edgeward token create sensor-7 --publish 'site/berlin/#' --subscribe commands/sensor-7
  edgeward token list
  edgeward token revoke ci

Roles: a viewer looks at everything but secrets; a deployer also deploys, invokes and undeploys
functions, writes documents and publishes; an admin does everything. A client, such as a sensor that
speaks MQTT, does nothing but publish and subscribe to the topics that its token names: the token is its
password. Topics may be named for any role, which then has these and no others. Who has a token gives it by the
environment variable EDGEWARD_TOKEN, by `--token-file FILE`, or over HTTP as the header
`Authorization: Bearer TOKEN`.";

/// Make, list and revoke the tokens of the API
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Do not ask the node, which is stopped, but change its data folder
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Id of the node that will have the data folder, when it has never started
    #[arg(long, global = true, value_name = "ID", requires = "data_dir")]
    id: Option<NodeId>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a token, and print it this once
    Create {
        /// Its name, which is no secret
        name: TokenName,
        /// What its holder may do: client, viewer, deployer or admin [default: client, with --publish or --subscribe]
        #[arg(long, required_unless_present_any = ["publish", "subscribe"])]
        role: Option<Role>,
        /// Topics to which it publishes, such as `site/berlin/#`, and no others; may be given more than once
        #[arg(long, value_name = "FILTER")]
        publish: Vec<TopicFilter>,
        /// Topics that it follows, and no others; may be given more than once
        #[arg(long, value_name = "FILTER")]
        subscribe: Vec<TopicFilter>,
        /// For how long it is valid, such as `30d`, `12h` or `1h 30m` [default: for ever]
        #[arg(long, value_name = "TIME")]
        expires: Option<Lifetime>,
    },
    /// List the tokens
    List,
    /// Refuse a token from now on
    Revoke {
        /// Its name
        name: TokenName,
    },
}

/// For how long a token is valid, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lifetime(u64);

impl FromStr for Lifetime {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let seconds = || {
            let span: Span = text.parse().ok()?;
            let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
            u64::try_from(duration.as_secs()).ok().filter(|seconds| (1..=TOKEN_SECONDS_MAX).contains(seconds))
        };
        let refused = || EdgeError::invalid(format!("`{}` is no time such as `30d`, `12h` or `90m`, up to 36500d", text.escape_debug()));
        seconds().map(Self).ok_or_else(refused)
    }
}

/// Where the tokens are.
enum Place<'a> {
    Node(&'a Client),
    Folder(Box<StoppedNode>),
}

/// Runs the command.
pub(crate) async fn run(args: Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let Args { data_dir, id, action } = args;
    let place = match data_dir {
        None => Place::Node(client),
        Some(dir) => Place::Folder(Box::new(StoppedNode::open(&dir, id).map_err(not_opened)?)),
    };
    match action {
        Action::Create { name, role, publish, subscribe, expires } => {
            let role = role.unwrap_or(Role::Client);
            let rights = TopicRights { publish, subscribe };
            let topics = (!rights.is_empty()).then(|| rights.into());
            let body = TokenBody { name: name.clone(), role, topics, expires_in_seconds: expires.map(|Lifetime(seconds)| seconds) };
            let created = place.create(body).await?;
            if json {
                terminal::write_json(&created)?;
                return Ok(());
            }
            let CreatedToken { token } = serde_json::from_slice(&created)?;
            terminal::write(format!("{token}\n"))?;
            terminal::note(&format!("this is the token `{name}` of a role `{role}`; it is shown this once"));
        }
        Action::List => {
            let tokens = place.list().await?;
            if json {
                terminal::write_json(&tokens)?;
            } else {
                terminal::write(shown(&serde_json::from_slice(&tokens)?, Timestamp::now(), Palette::stdout()))?;
            }
        }
        Action::Revoke { name } => {
            place.revoke(&name).await?;
            if json {
                terminal::write_json(serde_json::json!({ "name": name, "revoked": true }).to_string().as_bytes())?;
            } else {
                terminal::write(format!("revoked {name}\n"))?;
            }
        }
    }
    Ok(())
}

impl Place<'_> {
    async fn create(&self, body: TokenBody) -> anyhow::Result<Bytes> {
        match self {
            Self::Node(client) => {
                let request = Request::new(Method::POST, "/v1/tokens")
                    .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                    .payload(serde_json::to_vec(&body)?);
                Ok(client.send(request).await?.json().await?.bytes().to_vec().into())
            }
            Self::Folder(node) => {
                let token = body.into_token(Timestamp::now())?;
                let secret = node.tokens.create(&token)?;
                Ok(serde_json::to_vec(&CreatedAnswer::new(&secret, token))?.into())
            }
        }
    }

    async fn list(&self) -> anyhow::Result<Bytes> {
        match self {
            Self::Node(client) => Ok(client.get("/v1/tokens").await?.json().await?.bytes().to_vec().into()),
            Self::Folder(node) => Ok(serde_json::to_vec(&TokensAnswer::from(node.tokens.list()))?.into()),
        }
    }

    async fn revoke(&self, name: &TokenName) -> anyhow::Result<()> {
        match self {
            Self::Node(client) => drop(client.send(Request::new(Method::DELETE, format!("/v1/tokens/{name}"))).await?),
            Self::Folder(node) => node.tokens.revoke(name)?,
        }
        Ok(())
    }
}

fn not_opened(error: EdgeError) -> anyhow::Error {
    match error.kind() {
        ErrorKind::NotFound => {
            Hinted::new(error, "give the node's data folder; if it has never started, give the id that it will have with `--id ID` too")
                .into()
        }
        ErrorKind::Conflict => Hinted::new(error, "while the node runs, ask it: without `--data-dir`; else stop it first").into(),
        _ => error.into(),
    }
}

fn shown(Tokens { tokens }: &Tokens, now: Timestamp, palette: Palette) -> String {
    if tokens.is_empty() {
        return "there are no tokens; `edgeward token create --help` shows how to make one\n".to_owned();
    }
    let mut table = Table::new(&["NAME", "ROLE", "CREATED", "EXPIRES", "TOPICS"]);
    for token in tokens {
        let end = |end: Timestamp| if end <= now { format!("{end:.0} (has expired)") } else { format!("{end:.0}") };
        let expires = token.expires_at.map_or_else(|| "never".to_owned(), end);
        table.row(vec![
            token.name.as_str().into(),
            token.role.as_str().into(),
            format!("{:.0}", token.created_at).into(),
            expires.into(),
            token.topics.as_ref().map_or_else(|| "by its role".to_owned(), topics).into(),
        ]);
    }
    table.render(palette)
}

fn topics(TokenTopics { publish, subscribe }: &TokenTopics) -> String {
    let listed = |what: &str, filters: &[String]| (!filters.is_empty()).then(|| format!("{what} {}", filters.join(" ")));
    [listed("publishes", publish), listed("follows", subscribe)].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_written_as_people_do() {
        for (text, seconds) in [("30d", 30 * 86400), ("12h", 12 * 3600), ("1h 30m", 5400), ("2w", 14 * 86400), ("1s", 1), ("PT1M", 60)] {
            assert_eq!(text.parse::<Lifetime>().expect(text), Lifetime(seconds), "{text}");
        }
        for bad in ["", "30", "1mo", "0s", "-1d", "1ms", "40000d", "soon"] {
            bad.parse::<Lifetime>().expect_err(bad);
        }
    }

    #[test]
    fn tokens_are_listed_one_a_line_and_those_that_expired_are_marked() {
        let json = r#"{"tokens":[{"name":"ci","role":"deployer","created_at":"2026-01-02T03:04:05.6Z","expires_at":"2026-02-01T03:04:05.6Z",
             "topics":{"publish":["a/#","b"],"subscribe":["c"]}},
            {"name":"ops","role":"admin","created_at":"2026-01-02T03:04:05Z","expires_at":null}]}"#;
        let tokens = serde_json::from_str(json).expect("of the API");
        let at = |now: &str| shown(&tokens, now.parse().expect("valid"), Palette::plain());
        assert_eq!(
            at("2026-01-03T00:00:00Z"),
            "NAME  ROLE      CREATED               EXPIRES               TOPICS\n\
             ci    deployer  2026-01-02T03:04:05Z  2026-02-01T03:04:05Z  publishes a/# b, follows c\n\
             ops   admin     2026-01-02T03:04:05Z  never                 by its role\n"
        );
        assert!(at("2026-03-01T00:00:00Z").contains("2026-02-01T03:04:05Z (has expired)  publishes"));
        assert!(shown(&Tokens { tokens: Vec::new() }, Timestamp::UNIX_EPOCH, Palette::plain()).contains("no tokens"));
    }
}
