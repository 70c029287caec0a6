//! `edgeward nodes`: the nodes of the fleet.

use std::{collections::BTreeMap, time::Duration};

use edgeward::{EdgeError, EdgeNodeStatus, Load, NodeId};
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use jiff::{SignedDuration, Timestamp};

use crate::{
    client::{Client, NodeRecord, Nodes, Request},
    node_process::Label,
    terminal::{self, Cell, Palette, Style, Table, bar, printable, size, uptime},
};

/// Longest wait until a node is removed: the NATS servers must know it.
const REMOVE_TIMEOUT: Duration = Duration::from_mins(1);

const EXAMPLES: &str = "\
Examples:
  edgeward nodes
  edgeward nodes --status offline
  edgeward nodes show edge-01
  edgeward nodes label edge-01 site=berlin rack-
  edgeward nodes drain edge-01                  # what has a number of nodes goes elsewhere first
  edgeward nodes hold edge-01 --for 2h --reason inventory
  edgeward nodes remove edge-01
  edgeward nodes --json | jq -r '.nodes[] | select(.behind > 0).id'

A node is online; degraded when it reports late, is overloaded, has failing functions or a wrong clock; syncing while it catches up with
assignments or documents; offline when it has not been heard for three heartbeats. Silence never removes a node.";

/// List the nodes of the fleet, show, label, drain, hold or remove one
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only those of this status: online, degraded, syncing or offline
    #[arg(long)]
    status: Option<EdgeNodeStatus>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the nodes
    List {
        /// Only those of this status: online, degraded, syncing or offline
        #[arg(long)]
        status: Option<EdgeNodeStatus>,
    },
    /// Show all that is known of one node
    Show {
        /// The node
        id: NodeId,
    },
    /// Set labels of a node; `NAME-` removes one that was set so
    Label {
        /// The node
        id: NodeId,
        /// The labels
        #[arg(value_name = "NAME=VALUE|NAME-", required = true)]
        labels: Vec<String>,
    },
    /// Let functions with a number of nodes go elsewhere: first there, then gone here
    Drain {
        /// The node
        id: NodeId,
    },
    /// Let a drained node get such functions again
    Undrain {
        /// The node
        id: NodeId,
    },
    /// Let a node keep what it runs, and take nothing that is deployed anew; a hub is asked, or the node itself
    Hold {
        /// The node
        id: NodeId,
        /// For how long, such as `2h` or `30m` [default: until `nodes unhold`]
        #[arg(long = "for", value_name = "TIME")]
        time: Option<SignedDuration>,
        /// Why, for people
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Let a node take what is deployed anew again
    Unhold {
        /// The node
        id: NodeId,
    },
    /// Remove a node: its credentials end, and it is refused from now on
    Remove {
        /// The node
        id: NodeId,
    },
}

/// Runs the command.
pub(crate) async fn run(args: Args, client: &Client, json: bool) -> anyhow::Result<()> {
    match args.action {
        None => list(args.status, client, json).await,
        Some(Action::List { status }) => list(status.or(args.status), client, json).await,
        Some(Action::Show { id }) => {
            let answer = client.get(format!("/v1/nodes/{id}")).await?.json().await?;
            if json {
                terminal::write_json(answer.bytes())?;
            } else {
                terminal::write(shown(&answer.read()?, Timestamp::now(), Palette::stdout()))?;
            }
            Ok(())
        }
        Some(Action::Label { id, labels }) => {
            let labels = labels.iter().map(|text| change(text)).collect::<Result<BTreeMap<_, _>, _>>()?;
            let request = Request::new(Method::PATCH, format!("/v1/nodes/{id}"))
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
                .payload(serde_json::to_vec(&serde_json::json!({ "labels": labels }))?);
            let answer = client.send(request).await?.json().await?;
            if json {
                terminal::write_json(answer.bytes())?;
            } else {
                let node: NodeRecord = answer.read()?;
                terminal::write(format!("{id}  {}\n", labels_of(&node)))?;
            }
            Ok(())
        }
        Some(Action::Drain { id }) => change_node(&id, &serde_json::json!({ "draining": true }), "is drained", client, json).await,
        Some(Action::Undrain { id }) => {
            change_node(&id, &serde_json::json!({ "draining": false }), "is no longer drained", client, json).await
        }
        Some(Action::Hold { id, time, reason }) => {
            let seconds = time.map(|time| u64::try_from(time.as_secs())).transpose();
            let seconds = seconds.map_err(|_| EdgeError::invalid("--for is a time that is still to come, such as `2h`"))?;
            let hold = serde_json::json!({ "hold": { "held": true, "reason": reason, "seconds": seconds } });
            change_node(&id, &hold, "holds what it runs", client, json).await
        }
        Some(Action::Unhold { id }) => {
            change_node(&id, &serde_json::json!({ "hold": { "held": false } }), "takes what is deployed anew", client, json).await
        }
        Some(Action::Remove { id }) => {
            client.send(Request::new(Method::DELETE, format!("/v1/nodes/{id}")).answer_timeout(REMOVE_TIMEOUT)).await?;
            if json {
                terminal::write_json(serde_json::json!({ "id": id, "removed": true }).to_string().as_bytes())?;
            } else {
                terminal::write(format!("removed {id}; it goes on by itself until it is stopped, and joins again only by a new token\n"))?;
            }
            Ok(())
        }
    }
}

/// Changes a node, and says what that means.
async fn change_node(id: &NodeId, change: &serde_json::Value, what: &str, client: &Client, json: bool) -> anyhow::Result<()> {
    let request = Request::new(Method::PATCH, format!("/v1/nodes/{id}"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .payload(serde_json::to_vec(change)?);
    let answer = client.send(request).await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        terminal::write(format!("{id} {what}\n"))?;
    }
    Ok(())
}

async fn list(status: Option<EdgeNodeStatus>, client: &Client, json: bool) -> anyhow::Result<()> {
    let query = status.map_or_else(String::new, |status| format!("?status={}", status.as_str()));
    let answer = client.get(format!("/v1/nodes{query}")).await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        let Nodes { nodes } = answer.read()?;
        terminal::write(table(&nodes, status, Timestamp::now(), Palette::stdout()))?;
    }
    Ok(())
}

/// A label to set, or one to remove.
fn change(text: &str) -> Result<(String, Option<String>), edgeward::EdgeError> {
    match text.strip_suffix('-').filter(|name| !name.contains('=')) {
        Some(name) => Ok((name.to_owned(), None)),
        None => text.parse().map(|Label { name, value }| (name, Some(value))),
    }
}

/// How a status stands out.
pub(crate) fn status_style(status: EdgeNodeStatus) -> Style {
    match status {
        EdgeNodeStatus::Online => Style::Good,
        EdgeNodeStatus::Offline => Style::Error,
        EdgeNodeStatus::Degraded | EdgeNodeStatus::Syncing => Style::Warning,
    }
}

fn table(nodes: &[NodeRecord], status: Option<EdgeNodeStatus>, now: Timestamp, palette: Palette) -> String {
    if nodes.is_empty() {
        return match status {
            Some(status) => format!("no node is {status}\n"),
            None => "no node belongs to the fleet; `edgeward join-token` makes the token for one\n".to_owned(),
        };
    }
    let mut table = Table::new(&["ID", "STATUS", ">FOR", ">BEHIND", "CPU", "MEMORY", "DISK", "LABELS", "WHY"]);
    for record in nodes {
        let node = &record.node;
        let share = |share: fn(&Load) -> f64| {
            let load = record.load.as_ref().filter(|_| node.status != EdgeNodeStatus::Offline);
            load.map_or_else(|| "-".to_owned(), |load| format!("{} {:>3.0}%", bar(share(load), 6), share(load) * 100.0))
        };
        table.row(vec![
            Cell::new(Style::Strong, node.id.as_str()),
            Cell::new(status_style(node.status), node.status.as_str()),
            since(record.since, now).into(),
            record.behind.to_string().into(),
            share(|load| f64::from(load.cpu_percent) / 100.0).into(),
            share(|load| ratio(load.memory_used_bytes, load.memory_total_bytes)).into(),
            share(|load| ratio(load.disk_used_bytes, load.disk_total_bytes)).into(),
            labels_of(record).into(),
            printable(&notes(record).join(", ")).as_ref().into(),
        ]);
    }
    table.render(palette)
}

/// Why a node is as it is, and what its owner wants with it.
fn notes(record: &NodeRecord) -> Vec<String> {
    let mut notes = record.reasons.clone();
    notes.extend(record.draining.then(|| "draining".to_owned()));
    notes.extend(record.held.clone());
    notes
}

#[expect(clippy::cast_precision_loss, reason = "it is shown in whole percent")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

fn labels_of(record: &NodeRecord) -> String {
    let labels: Vec<_> = record.node.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    printable(&labels.join(",")).into_owned()
}

fn since(then: Timestamp, now: Timestamp) -> String {
    uptime(Duration::try_from(now.duration_since(then).max(SignedDuration::ZERO)).unwrap_or_default())
}

fn shown(record: &NodeRecord, now: Timestamp, palette: Palette) -> String {
    let node = &record.node;
    let mut table = Table::of_fields();
    table.field("node", Cell::new(Style::Strong, node.id.as_str()));
    table.field("name", printable(&node.name).as_ref());
    if !node.location.is_empty() {
        table.field("location", printable(&node.location).as_ref());
    }
    table.field("status", Cell::new(status_style(node.status), node.status.as_str()));
    table.field("since", format!("{:.0} ({})", record.since, since(record.since, now)));
    if !record.reasons.is_empty() {
        table.field("why", printable(&record.reasons.join(", ")).as_ref());
    }
    table.field("heartbeat", format!("{}, last {} ago", record.connectivity, since(node.last_heartbeat, now)));
    table.field("behind", format!("{} assignments and changes", record.behind));
    if !node.capabilities.is_empty() {
        table.field("capabilities", printable(&node.capabilities.join(", ")).as_ref());
    }
    if !node.labels.is_empty() {
        table.field("labels", labels_of(record));
    }
    if let Some(load) = &record.load {
        table.field("cpu", format!("{} %", load.cpu_percent));
        table.field("memory", format!("{} of {}", size(load.memory_used_bytes), size(load.memory_total_bytes)));
        table.field("disk", format!("{} of {}", size(load.disk_used_bytes), size(load.disk_total_bytes)));
        table.field("running", format!("{} invocations", load.running));
    }
    if record.draining {
        table.field("draining", Cell::new(Style::Warning, "functions with a number of nodes go elsewhere"));
    }
    if let Some(held) = &record.held {
        table.field("updates", Cell::new(Style::Warning, &printable(held)));
    }
    if record.dropped_events > 0 {
        table.field("dropped", format!("{} events, as its outbox was full", record.dropped_events));
    }
    if !record.release.is_empty() {
        table.field("release", printable(&record.release).as_ref());
    }
    if let Some(joined_at) = record.joined_at {
        table.field("joined", format!("{joined_at:.0}"));
    }
    table.render(palette)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> NodeRecord {
        serde_json::from_str(
            r#"{"id":"edge-01","name":"warehouse","location":"Berlin","status":"degraded","capabilities":["gpu"],"metadata":{},
                "labels":{"site":"berlin"},"last_heartbeat":"2026-01-02T03:04:05Z","since":"2026-01-02T03:03:05Z",
                "reasons":["1 function fails"],"connectivity":"heard","behind":3,
                "load":{"cpu_percent":50,"memory_used_bytes":1073741824,"memory_total_bytes":4294967296,"disk_used_bytes":0,
                "disk_total_bytes":1073741824,"running":2},"dropped_events":7,"release":"0.1.0","joined_at":"2026-01-01T00:00:00Z"}"#,
        )
        .expect("a node of the API")
    }

    #[test]
    fn a_node_is_a_line_with_its_status_and_why() {
        let now = "2026-01-02T03:04:06Z".parse().expect("a time");
        let shown = table(&[record()], None, now, Palette::plain());
        for part in ["edge-01", "degraded", "1 min 1 s", " 50%", " 25%", "site=berlin", "1 function fails"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(table(&[], None, now, Palette::plain()).contains("join-token"));
        assert_eq!(table(&[], Some(EdgeNodeStatus::Offline), now, Palette::plain()), "no node is offline\n");
    }

    #[test]
    fn one_node_is_shown_with_its_load_and_lag() {
        let now = "2026-01-02T03:04:06Z".parse().expect("a time");
        let shown = shown(&record(), now, Palette::plain());
        for part in [
            "1 function fails\n",
            "heard, last 1 s ago\n",
            "3 assignments and changes\n",
            "1.0 GiB of 4.0 GiB\n",
            "2 invocations\n",
            "7 events, as",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }

    #[test]
    fn labels_are_set_and_removed() {
        assert_eq!(change("site=a-").expect("valid"), ("site".to_owned(), Some("a-".to_owned())));
        assert_eq!(change("site-").expect("valid"), ("site".to_owned(), None));
        assert!(change("site").is_err());
    }
}
