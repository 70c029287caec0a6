//! Seals: by them a hub knows what it wrote itself among what its nodes give it.
//!
//! A hub that was set back takes from each node what it is to run, as that is all that is left of it. So a node can write what it likes there, and
//! without a seal the hub would call it for functions that it was never given. The key is between hubs, and comes to be with the first assignment.

use std::collections::BTreeMap;

use edgeward_model::{DocumentName, EdgeError, ErrorKind, NodeId, Object, Value, python_json};
use edgeward_sync::{Documents, Precondition};

use crate::stored;

const DOCUMENT: &str = "edgeward.hub.seal";
const KEY: &str = "key";
/// The field of a record that holds its seal.
const SEAL: &str = "seal";

/// The key of a fleet's seals.
#[derive(Clone, Copy)]
pub(super) struct SealKey([u8; blake3::KEY_LEN]);

impl SealKey {
    /// The key of a fleet; none before anything was assigned. One that cannot be read is an error: what is sealed is then not known.
    pub(super) fn read(documents: &Documents) -> Result<Option<Self>, EdgeError> {
        let Some(value) = documents.document(DocumentName::new(DOCUMENT)?).get(KEY)? else { return Ok(None) };
        let what = || format!("`{KEY}` of document `{DOCUMENT}`");
        let text: String = stored::of_value(&value, what)?;
        let hash = blake3::Hash::from_hex(&text);
        let hash = hash.map_err(|error| EdgeError::new(ErrorKind::Internal, format!("failed to read {}", what())).with_source(error))?;
        Ok(Some(Self(*hash.as_bytes())))
    }

    /// A new one.
    pub(super) fn draw() -> Result<Self, EdgeError> {
        let mut key = [0; blake3::KEY_LEN];
        getrandom::fill(&mut key).map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to draw a key").with_source(error))?;
        Ok(Self(key))
    }

    /// Makes it the key of a fleet that has none.
    pub(super) fn write(self, documents: &Documents) -> Result<(), EdgeError> {
        let value = Value::String(blake3::Hash::from_bytes(self.0).to_hex().to_string());
        documents.document(DocumentName::new(DOCUMENT)?).edit(Precondition::None, move |draft| draft.set(KEY, &value)).map(drop)
    }

    /// The value of a record of this node, with a seal.
    pub(super) fn seal(self, node: &NodeId, record: Value) -> Result<Value, EdgeError> {
        let Value::Object(Object(mut fields)) = record else { return Ok(record) };
        fields.remove(SEAL);
        let seal = self.seal_of(node, &fields)?.to_hex().to_string();
        fields.insert(SEAL.to_owned(), Value::String(seal));
        Ok(Value::Object(Object(fields)))
    }

    /// Whether the value of a record was sealed by this key for this node.
    pub(super) fn has_sealed(self, node: &NodeId, record: &Value) -> Result<bool, EdgeError> {
        let Value::Object(Object(fields)) = record else { return Ok(false) };
        let mut fields = fields.clone();
        let Some(Value::String(seal)) = fields.remove(SEAL) else { return Ok(false) };
        let Ok(seal) = blake3::Hash::from_hex(&seal) else { return Ok(false) };
        // They are compared in constant time.
        Ok(self.seal_of(node, &fields)? == seal)
    }

    fn seal_of(self, node: &NodeId, unsealed: &BTreeMap<String, Value>) -> Result<blake3::Hash, EdgeError> {
        let text = format!("{node}\n{}", python_json::write(&Value::Object(Object(unsealed.clone())))?);
        Ok(blake3::keyed_hash(&self.0, text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_of_one_node_one_record_and_one_key() {
        let [a, b] = ["edge-1", "edge-2"].map(|id| NodeId::new(id).expect("valid"));
        let record = python_json::read(r#"{"id": "f", "revision": 1, "x": 0.1}"#).expect("JSON");
        let (key, other) = (SealKey::draw().expect("draws"), SealKey::draw().expect("draws"));
        let sealed = key.seal(&a, record.clone()).expect("seals");
        let holds = |key: SealKey, node: &NodeId, value: &Value| key.has_sealed(node, value).expect("reads");
        assert!(holds(key, &a, &sealed) && holds(key, &a, &key.seal(&a, sealed.clone()).expect("anew")));
        assert!(!holds(key, &b, &sealed) && !holds(other, &a, &sealed) && !holds(key, &a, &record));
        let Value::Object(Object(mut fields)) = sealed else { panic!("an object") };
        fields.insert("revision".to_owned(), python_json::read("2").expect("JSON"));
        assert!(!holds(key, &a, &Value::Object(Object(fields))));
    }
}
