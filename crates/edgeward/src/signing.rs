//! Signatures of artifacts: making them, with a key that its owner keeps, and checking them.
//!
//! A private key is a file in PEM (PKCS#8), as OpenSSL writes and reads it. A signature lies beside its artifact as JSON.

use ed25519_dalek::{
    Signature, Signer as _, VerifyingKey,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes, spki::der::pem::LineEnding},
};
use edgeward_model::{
    ArtifactSignature, Digest, EdgeError, ErrorKind, FunctionId, PublicKey, SignatureBytes, limits::SIGNING_FILE_BYTES_MAX, signed_bytes,
};
use serde::{Deserialize, Serialize};

/// A private key that signs artifacts. It is never written by `Debug`.
///
/// ```
/// use edgeward::{Digest, FunctionId, signing::{SigningKey, verify}};
///
/// let key = SigningKey::generate()?;
/// let (function, artifact) = (FunctionId::new("hello")?, Digest::from_sha256([7; 32]));
/// let signature = key.sign(&function, &artifact, 1);
/// verify(&function, &artifact, &signature)?;
/// assert!(verify(&FunctionId::new("other")?, &artifact, &signature).is_err());
/// # Ok::<(), edgeward::EdgeError>(())
/// ```
pub struct SigningKey(ed25519_dalek::SigningKey);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public_key()).finish()
    }
}

impl SigningKey {
    /// A new one.
    pub fn generate() -> Result<Self, EdgeError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to draw a key").with_source(error))?;
        Ok(Self(ed25519_dalek::SigningKey::from_bytes(&secret)))
    }

    /// Reads a key in PEM. The error repeats nothing of it.
    pub fn of_pem(pem: &str) -> Result<Self, EdgeError> {
        let refused = |_| EdgeError::invalid("the private key is not valid: it must be an Ed25519 key as PEM (`BEGIN PRIVATE KEY`)");
        ed25519_dalek::SigningKey::from_pkcs8_pem(pem).map(Self).map_err(refused)
    }

    /// The key in PEM, for a file that only its owner can read.
    pub fn to_pem(&self) -> Result<String, EdgeError> {
        // Without the public key, which not every reader of PKCS#8 knows.
        let bytes = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        let pem = bytes.to_pkcs8_pem(LineEnding::LF);
        let pem = pem.map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to write a key").with_source(error.to_string()))?;
        Ok(pem.to_string())
    }

    /// What others know it by.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// Says that these bytes may be this function, in its release of this counter.
    pub fn sign(&self, function: &FunctionId, artifact: &Digest, counter: u64) -> ArtifactSignature {
        let signature = self.0.sign(&signed_bytes(function, artifact, counter));
        ArtifactSignature { key: self.public_key(), counter, signature: SignatureBytes::from_bytes(signature.to_bytes()) }
    }
}

/// Checks that the key of a signature signed this artifact for this function. Whether the key is trusted is another question.
///
/// # Errors
/// [`ErrorKind::RefusedArtifact`] when it did not.
pub fn verify(function: &FunctionId, artifact: &Digest, signature: &ArtifactSignature) -> Result<(), EdgeError> {
    let refused = |source: Box<dyn std::error::Error + Send + Sync>| {
        let why = format!("the signature of function `{function}` is not that of `{}` over artifact `{artifact}`", signature.key);
        EdgeError::new(ErrorKind::RefusedArtifact, why).with_source(source)
    };
    let key = VerifyingKey::from_bytes(signature.key.as_bytes()).map_err(|error| refused(error.into()))?;
    let bytes = signed_bytes(function, artifact, signature.counter);
    // Strictly: neither a key of small order nor a second form of a signature passes.
    key.verify_strict(&bytes, &Signature::from_bytes(signature.signature.as_bytes())).map_err(|error| refused(error.into()))
}

/// What the file of a signature holds: what was signed, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedArtifact {
    /// The function that the artifact may be.
    pub function: FunctionId,
    /// The artifact.
    pub artifact: Digest,
    /// Who says so, and of which release.
    #[serde(flatten)]
    pub signature: ArtifactSignature,
}

impl SignedArtifact {
    /// Reads the JSON of a signature.
    pub fn of_json(json: &[u8]) -> Result<Self, EdgeError> {
        if json.len() > SIGNING_FILE_BYTES_MAX {
            return Err(EdgeError::new(ErrorKind::TooLarge, format!("a signature has at most {SIGNING_FILE_BYTES_MAX} bytes")));
        }
        let invalid = |error| EdgeError::invalid("the signature is not valid JSON of `edgeward sign`").with_source(error);
        serde_json::from_slice(json).map_err(invalid)
    }

    /// The signature as JSON, with a line feed at its end.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self).expect("it has only text and a number");
        json.push('\n');
        json
    }

    /// The signature, once it is known to be of this function and artifact, and right.
    pub fn signature_of(&self, function: &FunctionId, artifact: &Digest) -> Result<ArtifactSignature, EdgeError> {
        let refused = |why: String| Err(EdgeError::new(ErrorKind::RefusedArtifact, why));
        if self.function != *function {
            return refused(format!(
                "the signature is of function `{}`, not of `{function}`; sign the artifact for this id",
                self.function
            ));
        }
        if self.artifact != *artifact {
            return refused(format!("the signature is of artifact `{}`, not of `{artifact}`; sign the new bytes", self.artifact));
        }
        verify(function, artifact, &self.signature).map(|()| self.signature)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey(ed25519_dalek::SigningKey::from_bytes(&[seed; 32]))
    }

    fn function(id: &str) -> FunctionId {
        FunctionId::new(id).expect("valid")
    }

    fn flipped<const N: usize>(bytes: &[u8; N], bit: usize) -> [u8; N] {
        let mut bytes = *bytes;
        bytes[bit / 8 % N] ^= 1 << (bit % 8);
        bytes
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_refused(seed: u8, id in "[a-z]{1,16}", digest: [u8; 32], counter: u64, bit in 0_usize..512) {
            let (id, artifact) = (function(&id), Digest::from_sha256(digest));
            let signature = key(seed).sign(&id, &artifact, counter);
            verify(&id, &artifact, &signature).expect("as it was signed");
            let refused = |id: &FunctionId, artifact: &Digest, signature: ArtifactSignature| {
                verify(id, artifact, &signature).expect_err("changed").kind() == ErrorKind::RefusedArtifact
            };
            let other = SignatureBytes::from_bytes(flipped(signature.signature.as_bytes(), bit));
            assert!(refused(&id, &artifact, ArtifactSignature { signature: other, ..signature }));
            let other = PublicKey::from_bytes(flipped(signature.key.as_bytes(), bit));
            assert!(refused(&id, &artifact, ArtifactSignature { key: other, ..signature }));
            assert!(refused(&id, &artifact, ArtifactSignature { counter: counter ^ (1 << (bit % 64)), ..signature }));
            assert!(refused(&id, &Digest::from_sha256(flipped(&digest, bit)), signature));
            assert!(refused(&function(&format!("{id}0")), &artifact, signature));
        }

        #[test]
        fn what_is_no_signature_or_key_is_an_error_and_nothing_else(text in "\\PC{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            assert!(SignedArtifact::of_json(text.as_bytes()).is_err() && SignedArtifact::of_json(&bytes).is_err());
            assert!(SigningKey::of_pem(&text).is_err());
        }
    }

    #[test]
    fn a_key_of_small_order_signs_nothing() {
        // By the lax rule this signature is right for every text.
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        let forged =
            ArtifactSignature { key: PublicKey::from_bytes(identity), counter: 1, signature: SignatureBytes::from_bytes(signature) };
        let (id, artifact) = (function("hello"), Digest::from_sha256([1; 32]));
        let lax = VerifyingKey::from_bytes(&identity).expect("a point");
        let bytes = signed_bytes(&id, &artifact, 1);
        ed25519_dalek::Verifier::verify(&lax, &bytes, &Signature::from_bytes(&signature)).expect("by the lax rule");
        verify(&id, &artifact, &forged).expect_err("strictly");
    }

    #[test]
    fn a_private_key_comes_back_from_its_pem_and_that_of_openssl_is_read() {
        let made = SigningKey::generate().expect("random");
        let pem = made.to_pem().expect("writes");
        assert_eq!(SigningKey::of_pem(&pem).expect("its own").public_key(), made.public_key());
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n") && !format!("{made:?}").contains(&pem[28..60]));
        // The example of RFC 8410, which OpenSSL writes the same way.
        let example =
            "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        let read = SigningKey::of_pem(example).expect("valid");
        assert_eq!(read.public_key().to_string(), "ed25519:19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1");
        assert_eq!(read.to_pem().expect("writes"), example);
        for bad in ["", "s3cret", &pem.replace("PRIVATE", "PUBLIC"), &pem[..80], &pem.replace("MC4CAQ", "MC4CAR")] {
            let error = SigningKey::of_pem(bad).expect_err("damaged").chain();
            assert!(error.contains("BEGIN PRIVATE KEY") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn the_file_of_a_signature_says_of_what_it_is() {
        let (id, artifact) = (function("hello"), Digest::from_sha256([1; 32]));
        let file = SignedArtifact { function: id.clone(), artifact, signature: key(1).sign(&id, &artifact, 3) };
        let read = SignedArtifact::of_json(file.to_json().as_bytes()).expect("its own");
        assert_eq!(read, file);
        assert_eq!(read.signature_of(&id, &artifact).expect("right").counter, 3);
        let other = Digest::from_sha256([2; 32]);
        assert!(
            read.signature_of(&function("other"), &artifact)
                .expect_err("another")
                .to_string()
                .contains("of function `hello`, not of `other`")
        );
        assert!(read.signature_of(&id, &other).expect_err("another").to_string().contains("sign the new bytes"));
        let forged = SignedArtifact { artifact: other, ..file.clone() };
        assert!(forged.signature_of(&id, &other).expect_err("forged").to_string().contains("is not that of"));
        let large = vec![b' '; SIGNING_FILE_BYTES_MAX + 1];
        assert_eq!(SignedArtifact::of_json(&large).expect_err("large").kind(), ErrorKind::TooLarge);
        let error = SignedArtifact::of_json(file.to_json().replace("counter", "count").as_bytes()).expect_err("damaged");
        assert!(error.chain().contains("missing field `counter`"), "{}", error.chain());
    }
}
