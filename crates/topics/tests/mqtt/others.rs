//! Clients of others, where they are installed: `mosquitto_pub` and `mosquitto_sub` of the Debian package `mosquitto-clients`.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::TcpListener,
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::client::{Bench, DEADLINE};

/// Set where set-up has installed the clients, so that they must be there.
const SET_UP_VARIABLE: &str = "EDGEWARD_IS_SET_UP";

/// Whether the clients are here; when not, says why the test proves nothing.
fn are_installed() -> bool {
    let found = std::process::Command::new("mosquitto_pub").arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        assert!(std::env::var_os(SET_UP_VARIABLE).is_none(), "`mosquitto_pub` was not found, though `cargo xtask setup` installs it");
        eprintln!("not tested: `mosquitto_pub` was not found; install the package `mosquitto-clients`");
    }
    found
}

struct Server {
    port: String,
    task: tokio::task::JoinHandle<()>,
}

async fn serve() -> Server {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port().to_string();
    let task = tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            tokio::spawn(bench.broker.serve(stream, peer.to_string()));
        }
    });
    Server { port, task }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        // Else what they say of themselves waits in a buffer of theirs.
        let mut command = Command::new("stdbuf");
        command
            .args(["-oL", program, "-h", "127.0.0.1", "-p", &self.port])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn publish(&self, arguments: &[&str]) -> bool {
        let output = timeout(DEADLINE, self.command("mosquitto_pub", arguments).output()).await.expect("in time").expect("it starts");
        output.status.success()
    }

    /// A subscriber, as soon as it has subscribed.
    async fn subscriber(&self, arguments: &[&str]) -> Subscriber {
        let mut child = self.command("mosquitto_sub", arguments).arg("-d").spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut subscriber = Subscriber { child, lines };
        while !subscriber.line().await.starts_with("Subscribed") {}
        subscriber
    }
}

struct Subscriber {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Subscriber {
    async fn line(&mut self) -> String {
        timeout(DEADLINE, self.lines.next_line()).await.expect("in time").expect("readable").expect("more")
    }

    /// The next messages, without what it says of itself.
    async fn messages(&mut self, count: usize) -> Vec<String> {
        let mut messages = Vec::new();
        while messages.len() < count {
            messages.extend(Some(self.line().await).filter(|line| !line.starts_with("Client ")));
        }
        messages
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_mosquitto_publish_and_subscribe_with_every_qos_in_both_versions() {
    if !are_installed() {
        return;
    }
    for version in ["mqttv311", "mqttv5"] {
        let server = serve().await;
        let mut child = server.subscriber(&["-V", version, "-t", "a/#", "-q", "2", "-F", "%t %p %q"]).await;
        for qos in ["0", "1", "2"] {
            assert!(server.publish(&["-V", version, "-t", "a/x", "-q", qos, "-m", qos]).await);
        }
        assert_eq!(child.messages(3).await, ["a/x 0 0", "a/x 1 1", "a/x 2 1"]);
        assert!(server.publish(&["-V", version, "-t", "a/kept", "-r", "-q", "1", "-m", "kept"]).await);
        let mut late = server.subscriber(&["-V", version, "-t", "a/+", "-F", "%t %p %r"]).await;
        assert_eq!(late.messages(1).await, ["a/kept kept 1"]);
        assert!(!server.publish(&["-V", version, "-u", "wrong", "-t", "a", "-m", "x"]).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_will_of_a_client_of_mosquitto_that_is_killed_is_published() {
    if !are_installed() {
        return;
    }
    let server = serve().await;
    let mut reader = server.subscriber(&["-t", "a/will", "-q", "1"]).await;
    let mut dying = server.subscriber(&["-t", "b", "--will-topic", "a/will", "--will-payload", "gone", "--will-qos", "1"]).await;
    dying.child.kill().await.expect("killed");
    assert_eq!(reader.messages(1).await, ["gone"]);
}
