//! A hub and its nodes, each with a data folder of its own.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use edgeward::{
    ClusterOptions, Document, DocumentName, EdgeCluster, EdgeFunction, EdgeNode, EdgeNodeStatus, FleetService, Handler, HandlerName,
    NativeHandler, Node, NodeId, NodeOptions, NodeView, PublicKey, ServiceOptions, TopicExchange, TopicSharing, Uplink, UplinkOptions,
    cluster::{Backbone, membership::Timing},
    document::Precondition,
    events::{EventKind, FleetEvent},
};
use edgeward_model::limits::HEARTBEAT_MIN;
use tempfile::TempDir;

use crate::site::{Site, eventually};

pub(crate) fn id(text: &str) -> NodeId {
    NodeId::new(text).expect("valid")
}

pub(crate) fn timing() -> Timing {
    Timing::new(HEARTBEAT_MIN).expect("the shortest")
}

pub(crate) struct AtHub {
    pub(crate) cluster: EdgeCluster,
    _service: FleetService,
}

impl AtHub {
    pub(crate) async fn start(site: &Site, folder: &Path) -> Self {
        let mut opened = None;
        // What an earlier one in this process was doing when it was dropped may still have the folder.
        eventually("the folder is free", async || {
            opened = EdgeCluster::with_options(ClusterOptions {
                timing: timing(),
                heal_after: Some(HEAL_AFTER),
                ..ClusterOptions::in_folder(folder)
            })
            .ok();
            opened.is_some()
        })
        .await;
        let cluster = opened.expect("it was opened");
        let backbone = site.member("hub").await;
        let options = ServiceOptions { topics: site.topic_stream("hub").await, ..ServiceOptions::default() };
        let service = cluster.serve(backbone, options).await.expect("serves");
        Self { cluster, _service: service }
    }

    pub(crate) async fn is(&self, node: &str, status: EdgeNodeStatus) {
        eventually(&format!("{node} is {status}"), async || self.view(node).node.status == status).await;
    }

    pub(crate) fn view(&self, node: &str) -> NodeView {
        self.cluster.view_node(node).expect("it is registered")
    }

    /// Waits until a function serves on a node, as the node reports.
    pub(crate) async fn serves(&self, node: &str, function: &str) {
        eventually(&format!("{function} serves on {node}"), async || self.says(node, function) == Some("ready".to_owned())).await;
    }

    /// What a node says of a function.
    pub(crate) fn says(&self, node: &str, function: &str) -> Option<String> {
        let functions = self.cluster.node_functions(node).expect("reads");
        functions.get(function).map(|report| {
            let state = serde_json::to_value(report.state).expect("a word");
            [state.as_str().expect("a word"), &report.message].join(" ").trim_end().to_owned()
        })
    }

    pub(crate) fn events(&self, kind: EventKind) -> Vec<FleetEvent> {
        let events = self.cluster.events().list(None, 1000).expect("reads");
        events.into_iter().filter(|event| event.kind == kind).collect()
    }
}

pub(crate) struct AtNode {
    uplink: Option<Uplink>,
    pub(crate) node: Arc<Node>,
    pub(crate) folder: TempDir,
}

impl AtNode {
    /// A node that joined, with the native handler `double`.
    pub(crate) async fn start(site: &Site, hub: &AtHub, name: &str) -> Self {
        hub.cluster.admit(&id(name), None).expect("joins");
        let mut node = Self::open(name, tempfile::tempdir().expect("a folder"));
        node.connect(site).await;
        hub.is(name, EdgeNodeStatus::Online).await;
        node
    }

    pub(crate) fn open(name: &str, folder: TempDir) -> Self {
        Self::open_trusting(name, folder, BTreeSet::new())
    }

    /// A node whose owner gave it these keys.
    pub(crate) fn open_trusting(name: &str, folder: TempDir, trusted_keys: BTreeSet<PublicKey>) -> Self {
        let mut described = EdgeNode::new(name, "a far node").expect("valid");
        described.location = "Berlin".to_owned();
        described.capabilities.push("gpu".to_owned());
        described.labels.insert("site".to_owned(), "berlin".to_owned());
        let node = Node::open(NodeOptions { trusted_keys, ..NodeOptions::new(described, folder.path()) }).expect("opens");
        let double = NativeHandler::json(async |n: i64| Ok::<_, std::io::Error>(2 * n));
        node.runtime().register(HandlerName::new("double").expect("valid"), double);
        Self { node, folder, uplink: None }
    }

    pub(crate) async fn connect(&mut self, site: &Site) {
        let member = site.member(self.node.runtime().node().id.as_str()).await;
        self.connect_by(member, TopicSharing::default()).await;
    }

    /// Ties it to its hub by this backbone, to share messages.
    pub(crate) async fn connect_by(&mut self, member: Arc<dyn Backbone>, topics: TopicSharing) {
        let options = UplinkOptions { timing: timing(), topics, ..UplinkOptions::default() };
        self.uplink = Some(Uplink::start(Arc::clone(&self.node), member, options).await.expect("starts"));
    }

    pub(crate) fn exchange(&self) -> TopicExchange {
        self.uplink.as_ref().expect("it is connected").topics().borrow().clone()
    }

    /// Ends what ties it to its hub; it goes on.
    pub(crate) fn disconnect(&mut self) {
        self.uplink = None;
    }

    /// Ends it, and leaves its data folder.
    pub(crate) async fn stop(self) -> TempDir {
        let Self { node, folder, uplink } = self;
        drop(uplink);
        eventually("nobody has the node", async || Arc::strong_count(&node) == 1).await;
        folder
    }

    pub(crate) fn waiting_events(&self) -> u64 {
        self.uplink.as_ref().expect("it is connected").outbox().len().expect("reads")
    }

    pub(crate) fn document(&self, name: &str) -> Document {
        self.node.documents().document(DocumentName::new(name).expect("valid"))
    }

    pub(crate) async fn invoke(&self, function: &str, payload: &str) -> String {
        let answer = self.node.runtime().invoke(function, payload.to_owned()).await.expect("it runs here");
        String::from_utf8(answer.to_vec()).expect("text")
    }
}

pub(crate) fn native(function: &str, handler: &str) -> EdgeFunction {
    EdgeFunction::new(function, function, Handler::Native(HandlerName::new(handler).expect("valid"))).expect("valid")
}

/// A command that prints a line to its standard error, with so many bytes that it does not use.
pub(crate) fn command(line: &str, padding_bytes: usize) -> Vec<u8> {
    let noise: String = (0..padding_bytes as u64 / 8).map(|n| format!("{:08x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32)).collect();
    let length = line.len() + 1;
    let pages = 2 + (padding_bytes >> 16);
    wat::parse_str(format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") {pages})
            (data (i32.const 0) "\10\00\00\00\{length:02x}\00\00\00")
            (data (i32.const 16) "{line}\n")
            (data (i32.const 1024) "{noise}")
            (func (export "_start") (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))))"#
    ))
    .expect("valid")
}

pub(crate) async fn set(document: &Document, key: &'static str, value: i64) {
    let document = document.clone();
    let edit = move || document.edit(Precondition::None, move |draft| draft.set(key, &value.into()));
    edgeward::blocking(edit).await.expect("edits");
}

/// How long a node may be silent before what it had is placed elsewhere.
const HEAL_AFTER: Duration = Duration::from_secs(2);

/// Longer than a node may be silent.
pub(crate) const A_WHILE: Duration = Duration::from_millis(300);
