//! SCRAM (RFC 5802) with SHA-256 (RFC 7677) and SHA-512, on OpenSSL's primitives. As in Kafka's other clients names and passwords are taken as
//! they are, without SASLprep.

use bytes::Bytes;
use openssl::base64::{decode_block, encode_block};
use openssl::hash::{MessageDigest, hash};
use openssl::memcmp;
use openssl::pkcs5::pbkdf2_hmac;
use openssl::pkey::PKey;
use openssl::rand::rand_bytes;
use openssl::sign::Signer;

/// Fewer rounds than a broker must ask for are an attempt to learn the password (RFC 7677).
const FEWEST_ROUNDS: usize = 4096;

/// The hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    pub(super) fn mechanism(self) -> &'static str {
        match self {
            Hash::Sha256 => "SCRAM-SHA-256",
            Hash::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn digest(self) -> MessageDigest {
        match self {
            Hash::Sha256 => MessageDigest::sha256(),
            Hash::Sha512 => MessageDigest::sha512(),
        }
    }

    fn hmac(self, key: &[u8], text: &[u8]) -> Result<Vec<u8>, String> {
        let key = PKey::hmac(key).map_err(text_of)?;
        Signer::new(self.digest(), &key).and_then(|mut signer| signer.sign_oneshot_to_vec(text)).map_err(text_of)
    }
}

/// The client's first message.
pub(super) struct First {
    hash: Hash,
    nonce: String,
    bare: String,
}

impl First {
    /// With a nonce of its own.
    pub(super) fn new(hash: Hash, username: &str) -> Result<Self, String> {
        let mut random = [0; 24];
        rand_bytes(&mut random).map_err(text_of)?;
        Ok(Self::with_nonce(hash, username, encode_block(&random)))
    }

    fn with_nonce(hash: Hash, username: &str, nonce: String) -> Self {
        let username = username.replace('=', "=3D").replace(',', "=2C");
        First { hash, bare: format!("n={username},r={nonce}"), nonce }
    }

    pub(super) fn message(&self) -> Bytes {
        Bytes::from(format!("n,,{}", self.bare))
    }

    /// Answers the server's first message.
    pub(super) fn answer(&self, server: &[u8], password: &str) -> Result<Last, String> {
        let server = std::str::from_utf8(server).map_err(|_| "the broker's first word is no text")?;
        let field = |name: &str| server.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        let missing = |what: &str| format!("the broker's first word has no {what}");
        let nonce = field("r").ok_or_else(|| missing("nonce"))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the broker's nonce does not go on from ours".into());
        }
        let salt = decode_block(field("s").ok_or_else(|| missing("salt"))?).map_err(text_of)?;
        let rounds: usize = field("i").and_then(|i| i.parse().ok()).ok_or_else(|| missing("number of rounds"))?;
        if rounds < FEWEST_ROUNDS {
            return Err(format!("the broker asks for {rounds} rounds, fewer than the {FEWEST_ROUNDS} that are safe"));
        }
        let digest = self.hash.digest();
        let mut salted = vec![0; digest.size()];
        pbkdf2_hmac(password.as_bytes(), &salt, rounds, digest, &mut salted).map_err(text_of)?;
        let client_key = self.hash.hmac(&salted, b"Client Key")?;
        let stored_key = hash(digest, &client_key).map_err(text_of)?;
        let without_proof = format!("c=biws,r={nonce}");
        let said = format!("{},{server},{without_proof}", self.bare);
        let signature = self.hash.hmac(&stored_key, said.as_bytes())?;
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let server_key = self.hash.hmac(&salted, b"Server Key")?;
        Ok(Last { message: format!("{without_proof},p={}", encode_block(&proof)), expected: self.hash.hmac(&server_key, said.as_bytes())? })
    }
}

/// The client's last message, and what the server is to say to it.
pub(super) struct Last {
    message: String,
    expected: Vec<u8>,
}

impl Last {
    pub(super) fn message(&self) -> Bytes {
        Bytes::from(self.message.clone())
    }

    /// Whether the server knows the password too.
    pub(super) fn verify(&self, server: &[u8]) -> Result<(), String> {
        let said = std::str::from_utf8(server).unwrap_or_default();
        let signature = said.split(',').find_map(|field| field.strip_prefix("v=")).map(decode_block);
        match signature {
            Some(Ok(signature)) if signature.len() == self.expected.len() && memcmp::eq(&signature, &self.expected) => Ok(()),
            _ => Err(format!("the broker has not shown that it knows the password: {said}")),
        }
    }
}

fn text_of(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7677_comes_out() {
        let first = First::with_nonce(Hash::Sha256, "user", "rOprNGfwEbeRWgbNEkqO".into());
        assert_eq!(first.message(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let server = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let last = first.answer(server, "pencil").unwrap();
        assert_eq!(
            last.message(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(last.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
        for wrong in [&b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="[..], b"v=", b"e=invalid-proof", b""] {
            assert!(last.verify(wrong).is_err());
        }
    }

    #[test]
    fn a_broker_that_repeats_our_nonce_or_asks_for_few_rounds_is_refused() {
        let first = First::with_nonce(Hash::Sha512, "a,b=c", "abc".into());
        assert_eq!(first.message(), "n,,n=a=2Cb=3Dc,r=abc");
        for server in
            [&b"r=abc,s=QQ==,i=4096"[..], b"r=xyz,s=QQ==,i=4096", b"r=abcd,s=QQ==,i=4095", b"r=abcd,i=4096", b"r=abcd,s=QQ==", b"\xff"]
        {
            assert!(first.answer(server, "p").is_err(), "{server:?}");
        }
    }
}
