//! `edgeward status`: the node as it is now.

use std::time::Duration;

use edgeward::EdgeNodeStatus;

use crate::{
    client::{Client, HubStatus, Process, Status},
    terminal::{self, Cell, Palette, Style, Table, printable, size, uptime},
};

const EXAMPLES: &str = "\
Examples:
  edgeward status
  edgeward status --server http://127.0.0.1:7701
  edgeward status --json | jq -r .node.id";

/// Show the node: its health, addresses and resources
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) async fn run(client: &Client, json: bool) -> anyhow::Result<()> {
    let answer = client.get("/v1/status").await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        let palette = Palette::stdout();
        terminal::write(match answer.read()? {
            Process::Hub(status) => hub(&status, palette),
            Process::Node(status) => shown(&status, palette),
        })?;
    }
    Ok(())
}

fn hub(status: &HubStatus, palette: Palette) -> String {
    let style = match status.standing.as_str() {
        "active" => Style::Good,
        "standby" => Style::Warning,
        _ => Style::Error,
    };
    let up = Duration::try_from_secs_f64(status.uptime_seconds).unwrap_or_default();
    let mut table = Table::of_fields();
    table.field("hub", Cell::new(Style::Strong, status.hub.as_str()));
    table.field("standing", Cell::new(style, &status.standing));
    if let Some(term) = status.term {
        table.field("term", term.to_string());
    }
    if let Some(why) = &status.why {
        table.field("why", printable(why).as_ref());
    }
    table.field("servers", format!("{}{}", status.servers.join(", "), if status.connected { "" } else { " (not connected)" }));
    if let Some(why) = &status.credentials {
        table.field("credentials", Cell::new(Style::Error, &printable(why)));
    }
    if let Some(pid) = status.broker_pid {
        table.field("nats-server", format!("runs as process {pid}"));
    }
    let health = status.health;
    let counts = [("online", health.online), ("degraded", health.degraded), ("syncing", health.syncing), ("offline", health.offline)];
    let counts: Vec<_> = counts.iter().filter(|(_, count)| *count > 0).map(|(status, count)| format!("{count} {status}")).collect();
    let counts = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
    table.field("nodes", format!("{}{counts}", health.nodes));
    table.field("assignments", health.assignments.to_string());
    table.field("version", &status.version);
    table.field("up", format!("{} (since {:.0})", uptime(up), status.started_at));
    table.field("api", format!("http://{}", status.listen));
    table.field("data folder", &status.data_dir);
    if let Some(bytes) = status.resident_bytes {
        table.field("memory", format!("{} resident", size(bytes)));
    }
    table.render(palette)
}

fn shown(status: &Status, palette: Palette) -> String {
    let node = &status.node;
    let health = match node.status {
        EdgeNodeStatus::Online => Style::Good,
        EdgeNodeStatus::Offline | EdgeNodeStatus::Degraded => Style::Error,
        EdgeNodeStatus::Syncing => Style::Warning,
    };
    let up = Duration::try_from_secs_f64(status.uptime_seconds).unwrap_or_default();
    let mut table = Table::of_fields();
    table.field("node", Cell::new(Style::Strong, node.id.as_str()));
    table.field("name", &node.name);
    if !node.location.is_empty() {
        table.field("location", &node.location);
    }
    table.field("status", Cell::new(health, &node.status.to_string()));
    if !node.capabilities.is_empty() {
        table.field("capabilities", node.capabilities.join(", "));
    }
    table.field("version", &status.version);
    table.field("up", format!("{} (since {:.0})", uptime(up), status.started_at));
    table.field("api", format!("http://{}", status.listen));
    table.field("function urls", format!("http://{}/fn/ID/", status.functions_listen));
    let free = status.disk_free_bytes.map_or_else(String::new, |bytes| format!(" ({} free)", size(bytes)));
    table.field("data folder", format!("{}{free}", status.data_dir));
    table.field("functions", format!("{}, {} invocations running", status.functions, status.running));
    if let Some(bytes) = status.resident_bytes {
        table.field("memory", format!("{} resident", size(bytes)));
    }
    if let Some(fleet) = &status.fleet {
        let (style, text) = match (fleet.refused, fleet.connected) {
            (true, _) => (Style::Error, "refuses this node".to_owned()),
            (false, true) => (Style::Good, format!("connected, {}", fleet.documents)),
            (false, false) => (Style::Warning, "not connected; the node goes on by itself".to_owned()),
        };
        table.field("fleet", Cell::new(style, &text));
        if let Some(why) = &fleet.why {
            table.field("why", printable(why).as_ref());
        }
        if fleet.waiting_events + fleet.dropped_events > 0 {
            table.field("events", format!("{} wait for the hub, {} were dropped", fleet.waiting_events, fleet.dropped_events));
        }
        let topics = &fleet.topics;
        if topics.forwarded + topics.imported + topics.lost > 0 {
            let lost = if topics.lost > 0 { format!(", {} lost", topics.lost) } else { String::new() };
            table.field("messages", format!("{} forwarded, {} imported{lost}", topics.forwarded, topics.imported));
        }
        for (what, why) in [("not forwarded", &topics.forwarding_failed), ("not imported", &topics.importing_failed)] {
            if let Some(why) = why {
                table.field(what, Cell::new(Style::Warning, &printable(why)));
            }
        }
    }
    table.render(palette)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_names_the_node_its_addresses_and_its_resources() {
        let status: Status = serde_json::from_str(
            r#"{"node":{"id":"edge-01","name":"warehouse","location":"","status":"online","capabilities":["gpu"],"metadata":{},
                "last_heartbeat":"2026-01-02T03:04:05.6Z"},"version":"0.1.0","started_at":"2026-01-02T03:04:05Z","uptime_seconds":65.2,
                "listen":"127.0.0.1:7700","functions_listen":"127.0.0.1:8080","data_dir":"/var/lib/edgeward","disk_free_bytes":1073741824,
                "functions":2,"running":0,"resident_bytes":20971520}"#,
        )
        .expect("a status of the API");
        assert_eq!(
            shown(&status, Palette::plain()),
            "node           edge-01\nname           warehouse\nstatus         online\ncapabilities   gpu\n\
             version        0.1.0\nup             1 min 5 s (since 2026-01-02T03:04:05Z)\n\
             api            http://127.0.0.1:7700\nfunction urls  http://127.0.0.1:8080/fn/ID/\n\
             data folder    /var/lib/edgeward (1.0 GiB free)\nfunctions      2, 0 invocations running\nmemory         20.0 MiB resident\n"
        );
    }
}
