//! A site's own NATS server, as a leaf node of the operator's: what works and what does not, as `docs/operations.md` tells it.

use std::{collections::BTreeMap, fs, net::TcpListener, path::Path, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use data_encoding::BASE32_NOPAD;
use edgeward_cluster::{BackboneError, nats::ServerFiles};
use jiff::Timestamp;
use nkeys::KeyPair;
use serde_json::{Value, json};
use sha2::{Digest, Sha512_256};
use tokio::time::{Instant, timeout};

use crate::{
    fleet::{boot, echo, join},
    operator::{Operated, start, urls},
    server::Server,
    site::{down, eventually, up},
};

/// The key of one of the fleet's accounts, and credentials that a leaf node shows for it.
fn credentials(fleet: &Path, account: &str, denied: &[&str]) -> (String, String) {
    let keys: Value = serde_json::from_str(&fs::read_to_string(fleet.join("authority.json")).expect("there")).expect("JSON");
    let account = KeyPair::from_seed(keys["seeds"][account].as_str().expect("its seed")).expect("valid");
    let user = KeyPair::new_user();
    let mut claims = json!({
        "iat": Timestamp::now().as_second(),
        "iss": account.public_key(),
        "jti": "",
        "name": "leaf",
        "sub": user.public_key(),
        "nats": {
            "type": "user",
            "version": 2,
            "pub": { "deny": denied },
            "sub": { "deny": denied },
            "subs": -1,
            "data": -1,
            "payload": -1,
            "allowed_connection_types": ["LEAFNODE"],
        },
    });
    claims["jti"] = BASE32_NOPAD.encode(&Sha512_256::digest(claims.to_string())).into();
    let parts = [r#"{"typ":"JWT","alg":"ed25519-nkey"}"#, &claims.to_string()].map(|part| URL_SAFE_NO_PAD.encode(part));
    let signed = parts.join(".");
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(account.sign(signed.as_bytes()).expect("signs")));
    let block = |what: &str, text: &str| format!("-----BEGIN {what}-----\n{text}\n------END {what}------\n");
    let file = block("NATS USER JWT", &token) + &block("USER NKEY SEED", &user.seed().expect("its seed"));
    (account.public_key(), file)
}

/// A server at the centre that takes leaf nodes, and one of a site that joins these accounts.
async fn centre_and_leaf(site: &Operated, accounts: &[&str]) -> (Server, Server) {
    let folder = site.folder.path();
    let port = TcpListener::bind(("127.0.0.1", 0)).expect("a free port").local_addr().expect("it is bound").port();
    let tls = "tls { cert_file: \"FILES/server.pem\", key_file: \"FILES/server.key\" }";
    let centre = start(&site.fleet, folder, "n1", format!("leafnodes {{ listen: \"127.0.0.1:{port}\", {tls} }}\n")).await;
    let files = folder.join("leaf");
    fs::create_dir_all(&files).expect("made");
    let remote = |account: &&str| {
        let denied: &[&str] = if *account == "account" { &["$JS.>", "$KV.>"] } else { &[] };
        let (key, text) = credentials(folder, account, denied);
        let file = files.join(account).with_extension("creds");
        fs::write(&file, text).expect("written");
        let (file, authority) = (file.display(), files.join("ca.pem"));
        let tls = format!("tls {{ ca_file: \"{}\" }}", authority.display());
        format!("{{ url: \"tls://127.0.0.1:{port}\", account: {key}, credentials: \"{file}\", {tls} }}")
    };
    let remotes = accounts.iter().map(remote).collect::<Vec<_>>().join(", ");
    let keys = Arc::clone(site.fleet.keys());
    let leaf = Server::start_with(move |port, _data| {
        let listen = ([127, 0, 0, 1], port).into();
        let server = ServerFiles { name: "leaf".to_owned(), listen, names: vec!["127.0.0.1".to_owned()], installed_at: files.clone() };
        server.write(&keys, &BTreeMap::new(), &files, Timestamp::now()).expect("written");
        let config = fs::read_to_string(files.join("nats.conf")).expect("it is there");
        let config: String = config.lines().filter(|line| !line.starts_with("jetstream")).map(|line| format!("{line}\n")).collect();
        format!("{config}leafnodes {{ remotes: [ {remotes} ] }}\n")
    });
    (centre, leaf.await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_server_is_a_leaf_node_joins_calls_and_is_removed() {
    let site = Operated::new();
    let (mut centre, leaf) = centre_and_leaf(&site, &["account", "system"]).await;
    let hub = site.hub(urls([&centre]), 1).await;
    let folder = site.folder.path().join("edge");
    fs::create_dir_all(&folder).expect("made");
    let token = site.fleet.join_token(urls([&leaf]), None, Duration::from_mins(5), Timestamp::now()).expect("made");
    eventually("it joins", async || join(&token, "edge", &folder).await.is_ok()).await;
    let (edge, _link) = boot(&folder).await;
    up(&edge, 1).await;
    echo(&edge, "edge").await.expect("answered");

    centre.kill();
    // What is asked before it knows goes to nobody, and waits in vain.
    let asking = async || timeout(Duration::from_secs(1), echo(&edge, "edge")).await;
    eventually("its site knows", async || matches!(asking().await, Ok(Err(BackboneError::NoResponder(_))))).await;
    assert!(edge.connection().borrow().is_up, "its own server is there");
    centre.start_again().await;
    eventually("it reaches the hub again", async || echo(&edge, "edge").await.is_ok()).await;
    eventually("so does the hub", async || hub.member.connection().borrow().is_up).await;
    // The leaf node joins its two accounts one after the other.
    let joined = |log: &str| log.matches("Leafnode connection created").count();
    eventually("both accounts are joined again", async || joined(&leaf.log()) >= 4).await;
    site.revoke(&hub, "edge").await;
    down(&edge).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaf_node_without_the_system_account_does_not_hear_who_was_removed() {
    let site = Operated::new();
    let (centre, leaf) = centre_and_leaf(&site, &["account"]).await;
    let hub = site.hub(urls([&centre]), 1).await;
    let folder = site.folder.path().join("edge");
    fs::create_dir_all(&folder).expect("made");
    let token = site.fleet.join_token(urls([&leaf]), None, Duration::from_mins(5), Timestamp::now()).expect("made");
    eventually("it joins", async || join(&token, "edge", &folder).await.is_ok()).await;
    let (edge, _link) = boot(&folder).await;
    up(&edge, 1).await;
    site.revoke(&hub, "edge").await;
    let end = Instant::now() + Duration::from_secs(3);
    eventually("some time has passed", async || Instant::now() > end).await;
    assert!(edge.connection().borrow().is_up, "it does hear of it now: say so in the documentation");
    drop(centre);
}
