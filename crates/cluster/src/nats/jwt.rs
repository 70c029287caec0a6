//! JSON web tokens as NATS wants them: signed with Ed25519, named by the digest of their claims.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use data_encoding::BASE32_NOPAD;
use edgeward_model::{EdgeError, ErrorKind};
use jiff::Timestamp;
use nkeys::KeyPair;
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
}
