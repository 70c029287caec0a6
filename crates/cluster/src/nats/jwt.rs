//! JSON web tokens as NATS wants them: signed with Ed25519, named by the digest of their claims.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use data_encoding::BASE32_NOPAD;
use edgeward_model::{EdgeError, ErrorKind};
use jiff::Timestamp;
use nkeys::KeyPair;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha512_256};

const HEADER: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;

/// Who a token is about.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) name: &'a str,
    /// Its public key.
    pub(super) subject: &'a str,
    pub(super) expires_at: Option<Timestamp>,
}

/// The token of an issuer about somebody, with what NATS reads of it.
pub(super) fn sign(issuer: &KeyPair, about: About<'_>, now: Timestamp, nats: &Value) -> Result<String, EdgeError> {
    let mut claims = json!({
        "iat": now.as_second(),
        "iss": issuer.public_key(),
        "jti": "",
        "name": about.name,
        "sub": about.subject,
        "nats": nats,
    });
    if let Some(expires_at) = about.expires_at {
        claims["exp"] = expires_at.as_second().into();
    }
    claims["jti"] = BASE32_NOPAD.encode(&Sha512_256::digest(claims.to_string())).into();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = issuer.sign(signed.as_bytes()).map_err(|error| {
        EdgeError::new(ErrorKind::Internal, format!("failed to sign the credentials of `{}`", about.name)).with_source(error)
    })?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// What a token says, as far as we read it.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    /// Public key of whom it is about.
    pub(super) sub: String,
    pub(super) name: String,
    /// When it was signed and when it ends, in seconds since 1970.
    iat: i64,
    exp: Option<i64>,
    #[serde(default)]
    nats: NatsClaims,
}

#[derive(Debug, Default, Deserialize)]
struct NatsClaims {
    #[serde(default)]
    tags: Vec<String>,
}

impl Claims {
    /// What a token says, whoever signed it.
    pub(super) fn read(token: &str) -> Result<Self, EdgeError> {
        let invalid = || EdgeError::invalid("a token of NATS is damaged");
        let claims = token.split('.').nth(1).ok_or_else(invalid)?;
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|error| invalid().with_source(error))?;
        serde_json::from_slice(&claims).map_err(|error| invalid().with_source(error))
    }

    /// What a token says that this issuer signed.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] when it did not.
    pub(super) fn verify(token: &str, issuer: &KeyPair) -> Result<Self, EdgeError> {
        let claims = Self::read(token)?;
        let (signed, signature) = token.rsplit_once('.').unwrap_or_default();
        let is_signed = URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| issuer.verify(signed.as_bytes(), &signature).is_ok());
        if is_signed && claims.iss == issuer.public_key() {
            Ok(claims)
        } else {
            Err(EdgeError::new(ErrorKind::Forbidden, "a token is not signed by this fleet"))
        }
    }

    /// When it ends; none that it does not.
    pub(super) fn ends_at(&self) -> Option<Timestamp> {
        // A time that no calendar has is none that comes.
        self.exp.and_then(|exp| Timestamp::from_second(exp).ok())
    }

    /// How long it lives in all.
    pub(super) fn life(&self) -> Option<Duration> {
        Some(Duration::from_secs(u64::try_from(self.exp?.saturating_sub(self.iat)).unwrap_or(0)))
    }

    pub(super) fn has_tag(&self, tag: &str) -> bool {
        self.nats.tags.iter().any(|own| own == tag)
    }

    /// What follows the first of these prefixes among the tags.
    pub(super) fn tagged(&self, prefix: &str) -> Option<&str> {
        self.nats.tags.iter().find_map(|tag| tag.strip_prefix(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_who_signed_what_until_when() {
        let (issuer, now) = (KeyPair::new_account(), Timestamp::from_second(1_800_000_000).expect("a time"));
        let about = About { name: "edge-1", subject: "U123", expires_at: Some(now) };
        let token = sign(&issuer, about, now, &json!({"type": "user"})).expect("signed");
        let parts: Vec<&str> = token.split('.').collect();
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64");
        issuer.verify(format!("{}.{}", parts[0], parts[1]).as_bytes(), &decode(parts[2])).expect("it is its signature");
        let claims: Value = serde_json::from_slice(&decode(parts[1])).expect("JSON");
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!(issuer.public_key()), &json!("U123")));
        assert_eq!(
            (&claims["exp"], &claims["iat"], &claims["nats"]["type"]),
            (&json!(1_800_000_000), &json!(1_800_000_000), &json!("user"))
        );
        assert_eq!(claims["jti"].as_str().map(str::len), Some(52));
    }

    #[test]
    fn a_token_is_taken_from_its_issuer_only_and_unchanged() {
        let (issuer, now) = (KeyPair::new_account(), Timestamp::from_second(1_800_000_000).expect("a time"));
        let about = About { name: "edge-1", subject: "U123", expires_at: Timestamp::from_second(1_800_000_060).ok() };
        let token = sign(&issuer, about, now, &json!({"type": "user", "tags": ["a", "node:x"]})).expect("signed");
        let claims = Claims::verify(&token, &issuer).expect("its own");
        assert_eq!((claims.life(), claims.ends_at()), (Some(Duration::from_mins(1)), about.expires_at));
        assert!(claims.has_tag("a") && !claims.has_tag("b") && claims.tagged("node:") == Some("x"));
        assert!(Claims::verify(&token, &KeyPair::new_account()).is_err());
        let longer = sign(&KeyPair::new_account(), About { expires_at: None, ..about }, now, &json!({})).expect("signed");
        let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
        let mixed = [&parts(&token)[0], &parts(&longer)[1], &parts(&token)[2]].map(String::as_str).join(".");
        for bad in ["", ".", "..", "a.b.c", &token[..token.len() - 1], &mixed] {
            assert!(Claims::verify(bad, &issuer).is_err(), "{bad}");
        }
    }
}
