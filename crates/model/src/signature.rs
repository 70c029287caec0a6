//! Who vouches for an artifact: a signature by which a public key says that these bytes may be this function, and since which release.
//!
//! Nothing here computes a signature or checks one. What is signed is written down at [`signed_bytes`], so that any tool can do either.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    error::EdgeError,
    hex,
    id::{Digest, FunctionId},
};

/// How the text of a key begins.
const PREFIX: &str = "ed25519:";
/// What begins the signed bytes, so that no other use of a key signs the same.
const DOMAIN: &str = "edgeward-artifact-v1";

/// A public key of Ed25519, written `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Wraps the 32 bytes of a key, which need not be one of any use: who verifies finds out.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", hex::encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        text.strip_prefix(PREFIX).and_then(hex::decode).map(Self).ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            let why = format!("the public key `{}` is not valid: it must be `{PREFIX}` and 64 hexadecimal digits", shown.escape_debug());
            EdgeError::invalid(why)
        })
    }
}

/// The 64 bytes of a signature of Ed25519, written as 128 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignatureBytes([u8; 64]);

impl SignatureBytes {
    /// Wraps the bytes, which need not be a signature.
    pub fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Display for SignatureBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for SignatureBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SignatureBytes {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let refused = || EdgeError::invalid("the signature is not valid: it must be 128 hexadecimal digits");
        hex::decode(text).map(Self).ok_or_else(refused)
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(PublicKey);
as_text!(SignatureBytes);

/// What a key says of the artifact of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ArtifactSignature {
    /// Whose signature it is.
    pub key: PublicKey,
    /// Grows with each release of the function, so that an old image cannot come back as a new one.
    pub counter: u64,
    /// The signature of [`signed_bytes`].
    pub signature: SignatureBytes,
}

/// What is signed: four lines, each with a line feed at its end. They are `edgeward-artifact-v1`, the id of the function, the digest of the
/// artifact, and the counter in decimal digits. None of them can hold a line feed, so no two signatures mean the same bytes.
pub fn signed_bytes(function: &FunctionId, artifact: &Digest, counter: u64) -> Vec<u8> {
    format!("{DOMAIN}\n{function}\n{artifact}\n{counter}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_four_lines() {
        let artifact = Digest::from_sha256([10; 32]);
        let bytes = signed_bytes(&FunctionId::new("hello").expect("valid"), &artifact, 7);
        let expected = format!("edgeward-artifact-v1\nhello\nsha256:{}\n7\n", "0a".repeat(32));
        assert_eq!(String::from_utf8(bytes).expect("text"), expected);
    }

    #[test]
    fn a_key_and_a_signature_read_back_what_they_write_and_refuse_the_rest() {
        let signature = ArtifactSignature {
            key: PublicKey::from_bytes([0x0a; 32]),
            counter: u64::MAX,
            signature: SignatureBytes::from_bytes([0xb0; 64]),
        };
        let json = serde_json::to_string(&signature).expect("json");
        let (key, digits) = (format!("ed25519:{}", "0a".repeat(32)), "b0".repeat(64));
        assert_eq!(json, format!(r#"{{"key":"{key}","counter":18446744073709551615,"signature":"{digits}"}}"#));
        assert_eq!(serde_json::from_str::<ArtifactSignature>(&json).expect("its own text"), signature);
        for bad in
            ["", "ed25519:", &key[..70], &key.replace("0a", "0g"), &key.replace("ed25519", "rsa"), &format!("{key}0"), &"é".repeat(36)]
        {
            assert!(bad.parse::<PublicKey>().expect_err(bad).to_string().contains("64 hexadecimal digits"), "{bad}");
        }
        for bad in [json.replace("b0b0", "b0"), json.replace("18446744073709551615", "-1"), json.replace("\"counter\"", "\"count\"")] {
            serde_json::from_str::<ArtifactSignature>(&bad).expect_err(&bad);
        }
    }
}
