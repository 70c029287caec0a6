use edgeward_model::{Digest, DocumentName, Handler, HandlerName, NodeId, Value};
use edgeward_sync::{Epoch, Precondition, Role, Store};
use jiff::Timestamp;

use super::*;
use crate::signing::SigningKey;

fn documents(role: Role) -> Documents {
    let id = NodeId::new("edge-01").expect("valid");
    Documents::new(Store::in_memory_as(id, Epoch::draw().expect("random"), role).expect("opens"))
}

fn key() -> SigningKey {
    SigningKey::generate().expect("random")
}

fn function(id: &str) -> EdgeFunction {
    EdgeFunction::new(id, id, Handler::Artifact(Digest::from_sha256([7; 32]))).expect("valid")
}

fn signed(id: &str, key: &SigningKey, counter: u64) -> EdgeFunction {
    let mut function = function(id);
    function.signature = function.handler.artifact().map(|artifact| key.sign(&function.id, &artifact, counter));
    function
}

fn trusting(documents: &Documents, key: &SigningKey) -> Trust {
    Trust::open(documents, BTreeSet::from([key.public_key()])).expect("opens")
}

fn refusal(trust: &Trust, function: &EdgeFunction) -> String {
    let error = trust.check(function).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::RefusedArtifact, "{error}");
    error.to_string()
}

#[test]
fn without_a_key_everything_may_run_and_no_counter_is_kept() {
    let documents = documents(Role::Replica);
    let trust = Trust::open(&documents, BTreeSet::new()).expect("opens");
    assert!(!trust.requires_signatures());
    for function in [function("f"), signed("f", &key(), 9)] {
        trust.check(&function).expect("may run");
        trust.confirm(&function).expect("nothing to note");
    }
    // Had the counter of a signature that nobody checked counted, anybody could shut the owner out.
    let key = key();
    trusting(&documents, &key).check(&signed("f", &key, 1)).expect("may run");
}

#[test]
fn with_a_key_only_what_it_signed_for_the_function_may_run() {
    let (documents, key) = (documents(Role::Replica), key());
    let trust = trusting(&documents, &key);
    assert!(trust.requires_signatures());
    let good = signed("f", &key, 3);
    trust.check(&good).expect("signed");
    assert!(refusal(&trust, &function("f")).contains("`f` is not signed"));
    assert!(refusal(&trust, &signed("f", &self::key(), 3)).contains("not trusted here"));
    let of_another = EdgeFunction { signature: signed("g", &key, 3).signature, ..good.clone() };
    assert!(refusal(&trust, &of_another).contains("is not that of"));
    let other_bytes = EdgeFunction { handler: Handler::Artifact(Digest::from_sha256([8; 32])), ..good.clone() };
    refusal(&trust, &other_bytes);
    let later = good.signature.map(|signature| edgeward_model::ArtifactSignature { counter: 4, ..signature });
    refusal(&trust, &EdgeFunction { signature: later, ..good.clone() });
    // What else the record says is not the signer's to decide.
    trust.check(&EdgeFunction { memory_mb: 64, ..good }).expect("signed");
    let native = Handler::Native(HandlerName::new("h").expect("valid"));
    trust.check(&EdgeFunction::new("f", "f", native).expect("valid")).expect("the process's own");
}

#[test]
fn what_was_confirmed_keeps_older_releases_out_for_ever() {
    let (documents, key) = (documents(Role::Replica), key());
    let trust = trusting(&documents, &key);
    trust.check(&signed("f", &key, 5)).expect("newer");
    trust.check(&signed("f", &key, 3)).expect("nothing is confirmed yet: a rollout may go back");
    trust.confirm(&signed("f", &key, 5)).expect("confirms");
    assert!(refusal(&trust, &signed("f", &key, 4)).contains("counter 4, and release 5 ran here"));
    assert_eq!(trust.confirm(&signed("f", &key, 4)).expect_err("older").kind(), ErrorKind::RefusedArtifact);
    trust.confirm(&signed("f", &self::key(), 9)).expect_err("another's");
    trust.confirm(&function("f")).expect("nothing to note");
    let again = trusting(&documents, &key);
    for trust in [&trust, &again] {
        refusal(trust, &signed("f", &key, 4));
        trust.check(&signed("f", &key, 5)).expect("the same again");
        trust.check(&signed("g", &key, 1)).expect("another function");
    }
    again.confirm(&signed("f", &key, u64::MAX)).expect("confirms");
    refusal(&trusting(&documents, &key), &signed("f", &key, u64::MAX - 1));
}

#[test]
fn the_keys_of_the_fleet_count_where_the_node_has_none() {
    let documents = documents(Role::Hub);
    let [first, second, own] = [key(), key(), key()];
    let trust = Trust::open(&documents, BTreeSet::new()).expect("opens");
    let trusted =
        |key: &SigningKey, name: &str| TrustedKey { key: key.public_key(), name: name.to_owned(), added_at: Timestamp::UNIX_EPOCH };
    let keys = trust.fleet_keys().clone();
    keys.add(trusted(&first, "first")).expect("added");
    trust.check(&function("f")).expect("it has not looked");
    assert!(trust.refresh().expect("reads") && !trust.refresh().expect("reads"));
    refusal(&trust, &function("f"));
    trust.check(&signed("f", &first, 1)).expect("trusted");
    assert_eq!(keys.add(trusted(&first, "")).expect_err("there").kind(), ErrorKind::Conflict);
    assert!(keys.add(trusted(&second, "a\nb")).is_err() && keys.add(trusted(&second, &"x".repeat(300))).is_err());
    keys.add(trusted(&second, "")).expect("added");
    keys.remove(&first.public_key(), false).expect("removed");
    assert_eq!(keys.remove(&first.public_key(), false).expect_err("gone").kind(), ErrorKind::NotFound);
    assert!(trust.refresh().expect("reads"));
    refusal(&trust, &signed("f", &first, 1));
    trust.check(&signed("f", &second, 1)).expect("trusted");
    assert_eq!(keys.list().expect("reads"), [trusted(&second, "")]);

    let of_owner = trusting(&documents, &own);
    of_owner.check(&signed("f", &own, 1)).expect("trusted");
    refusal(&of_owner, &signed("f", &second, 1));
    keys.add(trusted(&first, "")).expect("added");
    assert!(!of_owner.refresh().expect("reads"), "nothing changed for it");

    keys.remove(&first.public_key(), false).expect("removed");
    assert_eq!(keys.remove(&second.public_key(), false).expect_err("the last").kind(), ErrorKind::Conflict);
    keys.remove(&second.public_key(), true).expect("said so");
    assert!(trust.refresh().expect("reads") && !trust.requires_signatures());
    refusal(&of_owner, &function("f"));
}

#[test]
fn a_key_of_a_later_release_is_none_and_yet_says_that_signatures_are_required() {
    let documents = documents(Role::Hub);
    let name = DocumentName::new("edgeward.fleet.trusted-keys").expect("valid");
    documents.document(name).edit(Precondition::None, |draft| draft.set("ed448:00", &1_i64.into())).expect("edits");
    let trust = Trust::open(&documents, BTreeSet::new()).expect("opens");
    assert!(trust.requires_signatures() && trust.fleet_keys().list().expect("reads").is_empty());
    refusal(&trust, &function("f"));
    refusal(&trust, &signed("f", &key(), 1));
}

#[test]
fn a_counter_that_cannot_be_read_lets_nothing_start() {
    let documents = documents(Role::Replica);
    let name = DocumentName::new("edgeward.local.counters").expect("valid");
    documents.document(name).edit(Precondition::None, |draft| draft.set("f", &Value::from("five".to_owned()))).expect("edits");
    assert!(Trust::open(&documents, BTreeSet::new()).expect_err("damaged").to_string().contains("counter of function `f`"));
}
