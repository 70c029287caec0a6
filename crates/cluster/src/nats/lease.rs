//! Leases on a bucket of JetStream. The key `NAME` lives as long as the lease; the key `NAME.term` stays and holds the last term.
//!
//! Every write says which revision it follows, so that of two claimers one gets it. A key that lapsed leaves a marker for an hour,
//! so that a claim that was on its way for long follows no revision.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self, Context,
        context::{KeyValueErrorKind, PublishErrorKind},
        kv::{self, Operation, Store},
        message::PublishMessage,
    },
};
use edgeward_model::{NodeId, limits::SEND_TIMEOUT};
use futures::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use crate::{
    error::BackboneError,
    lease::{Claim, Claimed, Keeper, Lease},
    subject::Name,
};

const BUCKET: &str = "edgeward_leases";
/// What the holder of a lease has to send to.
pub(super) const SUBJECTS: [&str; 2] = ["$JS.API.>", "$KV.edgeward_leases.>"];
/// How long the marker of a lapsed lease stays.
const MARKER_TTL: Duration = Duration::from_hours(1);
const VALUE_BYTES_MAX: i32 = 1024;
/// Claims that meet another one of the same moment are repeated so often.
const ATTEMPTS: usize = 3;

pub(super) struct Leases {
    context: Context,
    replicas: usize,
}

/// The lease as its key holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Held {
    holder: NodeId,
    term: u64,
}

/// A key as it was read.
struct Known<T> {
    value: Option<T>,
    /// What the next write has to follow; 0 when there is no revision.
    revision: u64,
}

/// A write that was not done, as another came first.
struct Overtaken;

impl Leases {
    pub(super) fn new(client: Client, replicas: usize) -> Self {
        let mut context = jetstream::new(client);
        context.set_timeout(SEND_TIMEOUT);
        Self { context, replicas }
    }

    pub(super) async fn claim(&self, claim: Claim) -> Result<Claimed, BackboneError> {
        let claiming = async {
            let store = self.bucket().await?;
            for _ in 0..ATTEMPTS {
                if let Some(claimed) = self.try_claim(&store, &claim).await? {
                    return Ok(claimed);
                }
            }
            Err(failed(&claim.name, "other claims came first, each time"))
        };
        timeout(SEND_TIMEOUT, claiming).await.map_err(|_elapsed| BackboneError::Timeout(format!("lease {}", claim.name)))?
    }

    /// None when another claim of the same moment came first.
    async fn try_claim(&self, store: &Store, claim: &Claim) -> Result<Option<Claimed>, BackboneError> {
        let (key, term_key) = (claim.name.as_str(), format!("{}.term", claim.name));
        let known = read::<Held>(store, claim.name, key).await?;
        if let Some(Held { holder, term }) = &known.value
            && *holder != claim.holder
        {
            return Ok(Some(Claimed::Taken { holder: holder.clone(), term: *term }));
        }
        let last = read::<u64>(store, claim.name, &term_key).await?;
        let term = [claim.seen_term, last.value.unwrap_or(0), known.value.map_or(0, |held| held.term)].into_iter().max().unwrap_or(0) + 1;
        let mut keeper = NatsKeeper {
            context: self.context.clone(),
            store: store.clone(),
            name: claim.name,
            held: Held { holder: claim.holder.clone(), term },
            ttl: claim.ttl,
            revision: known.revision,
        };
        // Whoever gets a term is the only one who does, before the lease says it.
        if write(&self.context, claim.name, &term_key, &term, None, last.revision).await?.is_err() {
            return Ok(None);
        }
        let asked_at = Instant::now();
        Ok(keeper.put().await?.ok().map(|()| Claimed::Held(Lease::start(term, asked_at, claim.ttl, keeper))))
    }

    async fn bucket(&self) -> Result<Store, BackboneError> {
        let what = || "open the bucket of leases; does the NATS server have JetStream?".to_owned();
        match self.context.get_key_value(BUCKET).await {
            Ok(store) => return Ok(store),
            Err(error) if error.kind() == KeyValueErrorKind::GetBucket => {}
            Err(error) => return Err(BackboneError::Broker { what: what(), source: error.into() }),
        }
        let config = kv::Config {
            bucket: BUCKET.to_owned(),
            description: "leases of Edgeward".to_owned(),
            history: 1,
            max_value_size: VALUE_BYTES_MAX,
            num_replicas: self.replicas,
            limit_markers: Some(MARKER_TTL),
            ..kv::Config::default()
        };
        self.context.create_key_value(config).await.map_err(|error| BackboneError::Broker { what: what(), source: error.into() })
    }
}

fn failed(name: &Name, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BackboneError {
    BackboneError::Broker { what: format!("claim the lease `{name}`"), source: source.into() }
}

async fn read<T: for<'de> Deserialize<'de>>(store: &Store, name: Name, key: &str) -> Result<Known<T>, BackboneError> {
    let Some(entry) = store.entry(key).await.map_err(|error| failed(&name, error))? else {
        return Ok(Known { value: None, revision: 0 });
    };
    let value = match entry.operation {
        Operation::Put => Some(serde_json::from_slice(&entry.value).map_err(|error| failed(&name, error))?),
        Operation::Delete | Operation::Purge => None,
    };
    Ok(Known { value, revision: entry.revision })
}

/// Writes a key that must be at this revision, and returns the next. The bucket's own way to create a key forgets its time to live
/// when the key was there before.
async fn write<T: Serialize>(
    context: &Context,
    name: Name,
    key: &str,
    value: &T,
    ttl: Option<Duration>,
    follows: u64,
) -> Result<Result<u64, Overtaken>, BackboneError> {
    let json = serde_json::to_vec(value).expect("a small value is JSON");
    let mut message = PublishMessage::build().payload(json.into()).expected_last_subject_sequence(follows);
    if let Some(ttl) = ttl {
        // The broker counts whole seconds; the holder, who counts exactly, is done earlier.
        message = message.ttl(Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)));
    }
    let sent = context.send_publish(format!("$KV.{BUCKET}.{key}"), message).await.map_err(|error| failed(&name, error))?;
    match timeout(SEND_TIMEOUT, sent).await {
        Ok(Ok(ack)) => Ok(Ok(ack.sequence)),
        Ok(Err(error)) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(Err(Overtaken)),
        Ok(Err(error)) => Err(failed(&name, error)),
        Err(_elapsed) => Err(BackboneError::Timeout(format!("lease {name}"))),
    }
}

struct NatsKeeper {
    context: Context,
    store: Store,
    name: Name,
    held: Held,
    ttl: Duration,
    revision: u64,
}

impl NatsKeeper {
    async fn put(&mut self) -> Result<Result<(), Overtaken>, BackboneError> {
        let written = write(&self.context, self.name, self.name.as_str(), &self.held, Some(self.ttl), self.revision).await?;
        Ok(written.map(|revision| self.revision = revision))
    }
}

impl Keeper for NatsKeeper {
    fn renew(&mut self) -> BoxFuture<'_, Result<bool, BackboneError>> {
        async {
            if self.put().await?.is_ok() {
                return Ok(true);
            }
            // The answer to a renewal before may have been lost: then the key is still ours, and further on. Terms are given once.
            let known = read::<Held>(&self.store, self.name, self.name.as_str()).await?;
            if known.value.is_none_or(|held| held.term != self.held.term) {
                return Ok(false);
            }
            self.revision = known.revision;
            Ok(self.put().await?.is_ok())
        }
        .boxed()
    }

    fn release(&mut self) -> BoxFuture<'_, ()> {
        async {
            let released = timeout(SEND_TIMEOUT, self.store.delete_expect_revision(self.name.as_str(), Some(self.revision))).await;
            if let Ok(Err(error)) = released {
                tracing::debug!(%error, name = %self.name, "a lease was not given back and lapses");
            }
        }
        .boxed()
    }
}
