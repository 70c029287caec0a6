//! A hub and its nodes as processes, in folders that last from one start to the next.

use std::path::PathBuf;

use http::Method;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Node, json as body, until};

/// A hub with the folders of its fleet.
pub(crate) struct Fleet {
    folder: TempDir,
    pub(crate) hub: Option<Node>,
    /// Where its broker listens, the same after each start.
    pub(crate) broker: String,
    /// Options of the hub, and of each node.
    hub_options: Vec<String>,
    node_options: Vec<String>,
    /// Variables of the hub.
    hub_variables: Vec<(String, String)>,
}

impl Fleet {
    /// With short heartbeats.
    pub(crate) async fn start() -> Self {
        let short = ["--heartbeat-seconds", "0.2"];
        Self::start_with(&short, &short).await
    }

    pub(crate) async fn start_with(hub_options: &[&str], node_options: &[&str]) -> Self {
        Self::start_in(hub_options, node_options, &[]).await
    }

    /// The same with variables of the hub.
    pub(crate) async fn start_in(hub_options: &[&str], node_options: &[&str], hub_variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let owned = |options: &[&str]| options.iter().map(|option| (*option).to_owned()).collect();
        let (hub_options, node_options) = (owned(hub_options), owned(node_options));
        let hub_variables = hub_variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut fleet = Self { folder, hub: None, broker: "127.0.0.1:0".to_owned(), hub_options, node_options, hub_variables };
        fleet.start_hub().await;
        let servers = fleet.hub().json("/v1/status").await["servers"][0].as_str().expect("an address").to_owned();
        fleet.broker = servers.strip_prefix("nats://").expect("of NATS").to_owned();
        fleet
    }

    pub(crate) async fn start_hub(&mut self) {
        let mut options = vec!["--id", "hub-1", "--broker-listen", &self.broker];
        options.extend(self.hub_options.iter().map(String::as_str));
        let variables: Vec<_> = self.hub_variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let hub = Node::launch_as("hub", &self.path("hub"), &options, &variables);
        until("the hub serves", async || hub.ask(Method::GET, "/readyz", &[], "").await.status() == 200).await;
        self.hub = Some(hub);
    }

    pub(crate) fn hub(&self) -> &Node {
        self.hub.as_ref().expect("it runs")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn token(&self, options: &[&str]) -> String {
        let line = self.hub().done(&[&["join-token"], options].concat());
        String::from_utf8(line).expect("text").trim().to_owned()
    }

    /// Starts a node, which joins by a token where there is one.
    pub(crate) fn launch(&self, id: &str, token: Option<&str>) -> Node {
        self.launch_in(id, token, &[])
    }

    /// The same with variables.
    pub(crate) fn launch_in(&self, id: &str, token: Option<&str>, variables: &[(&str, &str)]) -> Node {
        let mut options = vec!["--id", id, "--label", "site=berlin", "--capability", "gpu"];
        options.extend(self.node_options.iter().map(String::as_str));
        options.extend(token.map(|token| ["--join", token]).into_iter().flatten());
        Node::launch_as("node", &self.path(id), &options, variables)
    }

    pub(crate) async fn join(&self, id: &str) -> Node {
        let node = self.launch(id, Some(&self.token(&[])));
        self.is(id, "online").await;
        node
    }

    pub(crate) async fn is(&self, id: &str, status: &str) {
        until(&format!("{id} is {status}"), async || {
            let answer = self.hub().ask(Method::GET, &format!("/v1/nodes/{id}"), &[], "").await;
            answer.status() == 200 && body(&answer)["status"] == status
        })
        .await;
    }

    /// Waits until a function serves on so many nodes.
    pub(crate) async fn serves(&self, function: &str, nodes: usize) {
        until(&format!("{function} serves on {nodes}"), async || {
            let functions = self.hub().json("/v1/functions").await;
            let functions = functions["functions"].as_array().expect("a list");
            functions.iter().filter(|entry| entry["id"] == function && entry["state"] == "ready").count() == nodes
        })
        .await;
    }

    /// The events so far.
    pub(crate) fn events(&self) -> Vec<Value> {
        let lines = String::from_utf8(self.hub().done(&["events", "--limit", "1000", "--json"])).expect("text");
        serde_json::Deserializer::from_str(&lines).into_iter().map(|event| event.expect("JSON")).collect()
    }

    pub(crate) fn has_event(&self, kind: &str, node: &str) -> bool {
        self.events().iter().any(|event| event["kind"] == kind && event["node"] == node)
    }
}
