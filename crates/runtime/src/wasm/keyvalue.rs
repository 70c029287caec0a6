//! `wasi:keyvalue`: the documents that a function was granted, as buckets.
//!
//! Two drafts of the interface are in use. Each has its bindings in a file of its own; grants, bounds and the calls are here,
//! once. A bucket is no snapshot: every call reads and writes the document as it is then. A write that is under way when its
//! guest is stopped is finished.

mod draft;
mod draft2;

use std::{collections::VecDeque, sync::Arc};

use edgeward_model::{
    Access, DocumentGrant, DocumentName, EdgeError, EdgeFunction, ErrorKind, FunctionId,
    limits::{
        BATCH_BYTES_MAX, BATCH_KEYS_MAX, BUCKETS_MAX, CURSORS_MAX, DOCUMENT_CALLS_MAX, KEY_BYTES_MAX, LISTED_KEYS_MAX, SWAPS_MAX,
        VALUE_BYTES_MAX,
    },
};
use edgeward_telemetry::{Span, SpanKind, TraceContext, begin, span};
use tokio::sync::Semaphore;
use wasmtime::component::{HasData, Linker, Resource, ResourceTable, ResourceTableError};

use crate::{
    documents::{DocumentAccess, Swapped},
    runtime::blocking,
    wasm::sandbox::Sandbox,
};

/// Characters of a key that an error repeats.
const KEY_CHARS_SHOWN: usize = 64;

/// Lets guests import both drafts. Who has no grant can open nothing.
pub(super) fn add_to_linker(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    draft::add_to_linker(linker)?;
    draft2::add_to_linker(linker)
}

/// What one function was granted, and the way there.
pub(crate) struct Granted {
    function: FunctionId,
    grants: Vec<DocumentGrant>,
    /// None where the runtime keeps no documents.
    access: Option<Arc<dyn DocumentAccess>>,
}

impl Granted {
    pub(crate) fn new(function: &EdgeFunction, access: Option<Arc<dyn DocumentAccess>>) -> Self {
        Self { function: function.id.clone(), grants: function.documents.clone(), access }
    }

    fn find(&self, identifier: &str) -> Result<Place, Refusal> {
        let name = DocumentName::new(identifier).map_err(|_| Refusal::NoSuchStore)?;
        let grant = self.grants.iter().find(|grant| grant.document == name).ok_or(Refusal::AccessDenied)?;
        let access = self.access.clone().ok_or(Refusal::NoSuchStore)?;
        Ok(Place { function: self.function.clone(), grant: grant.clone(), access, trace: None })
    }
}

/// A granted document.
#[derive(Clone)]
struct Place {
    function: FunctionId,
    grant: DocumentGrant,
    access: Arc<dyn DocumentAccess>,
    /// Where in its trace the call is, when it is kept.
    trace: Option<TraceContext>,
}

impl Place {
    fn writable(self) -> Result<Self, Refusal> {
        match self.grant.access {
            Access::ReadWrite => Ok(self),
            Access::ReadOnly => Err(Refusal::AccessDenied),
        }
    }

    /// Makes a call where it may block. It has its turn until it ends, also when its guest is gone.
    async fn call<T: Send + 'static>(
        self,
        operation: &'static str,
        call: impl FnOnce(&dyn DocumentAccess, &DocumentName) -> Result<T, EdgeError> + Send + 'static,
    ) -> Result<T, Refusal> {
        static TURNS: Semaphore = Semaphore::const_new(DOCUMENT_CALLS_MAX);
        let mut span = self.span(operation);
        let turn = TURNS.acquire().await.expect("the semaphore is never closed");
        let Self { function, grant, access, .. } = self;
        let document = grant.document.clone();
        let result = blocking(move || {
            let _turn = turn;
            call(&*access, &document)
        });
        result.await.map_err(|error| {
            span::fail(&mut span, &error);
            if error.kind() == ErrorKind::Internal {
                tracing::error!(%function, document = %grant.document, error = error.chain(), "a function's call to a document failed");
            }
            Refusal::Other(error.to_string())
        })
    }

    /// The span of a call, by the conventions for databases.
    fn span(&self, operation: &'static str) -> Option<Span> {
        let trace = self.trace?;
        let document = self.grant.document.as_str();
        let mut span = begin(Some(trace), SpanKind::Internal, || format!("{operation} {document}"))?;
        span.set("db.system.name", "edgeward");
        span.set("db.operation.name", operation);
        span.set("db.collection.name", document);
        span.set("faas.name", self.function.as_str());
        Some(span)
    }

    async fn get(self, key: String) -> Result<Option<Vec<u8>>, Refusal> {
        check_key(&key)?;
        self.call("get", move |access, document| access.get(document, &key)).await
    }

    /// Every key by itself: another write may come between two of them.
    async fn get_many(self, keys: Vec<String>) -> Result<Vec<(String, Option<Vec<u8>>)>, Refusal> {
        check_batch(keys.iter().map(|key| (key, None)))?;
        let read = self.call("get_many", move |access, document| {
            let (mut bytes, mut found) = (0, Vec::with_capacity(keys.len()));
            for key in keys {
                let value = access.get(document, &key)?;
                bytes += value.as_ref().map_or(0, Vec::len);
                if bytes > BATCH_BYTES_MAX {
                    let message = format!("the values of the batch are more than {BATCH_BYTES_MAX} bytes, the most; ask for fewer keys");
                    return Err(EdgeError::new(ErrorKind::TooLarge, message));
                }
                found.push((key, value));
            }
            Ok(found)
        });
        read.await
    }

    async fn keys(self, after: Option<String>) -> Result<Page, Refusal> {
        let mut keys = self.call("keys", move |access, document| access.keys(document, after.as_deref(), LISTED_KEYS_MAX + 1)).await?;
        let more = keys.len() > LISTED_KEYS_MAX;
        keys.truncate(LISTED_KEYS_MAX);
        Ok(Page { keys, more })
    }

    /// Sets and deletes keys, all or none.
    async fn write(self, writes: Vec<(String, Option<Vec<u8>>)>) -> Result<(), Refusal> {
        let place = self.writable()?;
        check_batch(writes.iter().map(|(key, value)| (key, value.as_deref())))?;
        place.call("write", move |access, document| access.write(document, writes)).await
    }

    async fn increment(self, key: String, by: i64) -> Result<i64, Refusal> {
        let place = self.writable()?;
        check_key(&key)?;
        place.call("increment", move |access, document| access.increment(document, key, by)).await
    }
}

/// A document that a guest has opened.
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
pub struct Bucket {
    place: Place,
    /// Where lists of keys can go on, the latest last, by number.
    cursors: VecDeque<(u64, String)>,
    cursors_given: u64,
}

/// A compare-and-swap that a guest has begun: what it saw.
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
pub struct Swap {
    place: Place,
    key: String,
    seen: Option<Vec<u8>>,
}

/// How much a guest holds open.
#[derive(Default)]
pub(crate) struct Held {
    buckets: usize,
    swaps: usize,
}

/// Why a call of a guest has no result.
pub(crate) enum Refusal {
    NoSuchStore,
    AccessDenied,
    Other(String),
    /// The guest used a handle that it does not have.
    Trap(wasmtime::Error),
}

impl From<ResourceTableError> for Refusal {
    fn from(error: ResourceTableError) -> Self {
        match error {
            ResourceTableError::Full => Self::Other("the function holds too many resources; drop one first".to_owned()),
            error => Self::Trap(error.into()),
        }
    }
}

/// A page of keys.
struct Page {
    keys: Vec<String>,
    /// Whether there are more.
    more: bool,
}

/// The documents of one guest.
pub(crate) struct KeyValue<'a> {
    pub(crate) granted: &'a Granted,
    pub(crate) held: &'a mut Held,
    pub(crate) table: &'a mut ResourceTable,
    /// Where in its trace this invocation is, when it is kept.
    pub(crate) trace: Option<TraceContext>,
}

impl HasData for KeyValue<'static> {
    type Data<'a> = KeyValue<'a>;
}

impl KeyValue<'_> {
    fn open(&mut self, identifier: &str) -> Result<Resource<Bucket>, Refusal> {
        let place = self.granted.find(identifier)?;
        if self.held.buckets >= BUCKETS_MAX {
            return Err(Refusal::Other(format!("the function holds {BUCKETS_MAX} buckets, which is the most; drop one first")));
        }
        let bucket = self.table.push(Bucket { place, cursors: VecDeque::new(), cursors_given: 0 })?;
        self.held.buckets += 1;
        Ok(bucket)
    }

    fn close(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        self.held.buckets -= 1;
        Ok(())
    }

    fn place(&self, bucket: &Resource<Bucket>) -> Result<Place, Refusal> {
        // A bucket may be older than the invocation.
        Ok(Place { trace: self.trace, ..self.table.get(bucket)?.place.clone() })
    }

    async fn begin_swap(&mut self, bucket: &Resource<Bucket>, key: String) -> Result<Resource<Swap>, Refusal> {
        let place = self.place(bucket)?;
        let seen = place.clone().get(key.clone()).await?;
        self.hold_swap(Swap { place, key, seen })
    }

    fn hold_swap(&mut self, swap: Swap) -> Result<Resource<Swap>, Refusal> {
        if self.held.swaps >= SWAPS_MAX {
            let message = format!("the function holds {SWAPS_MAX} compare-and-swap handles, which is the most; drop one first");
            return Err(Refusal::Other(message));
        }
        let swap = self.table.push(swap)?;
        self.held.swaps += 1;
        Ok(swap)
    }

    fn release_swap(&mut self, swap: Resource<Swap>) -> Result<Swap, ResourceTableError> {
        let swap = self.table.delete(swap)?;
        self.held.swaps -= 1;
        Ok(swap)
    }

    /// Ends a compare-and-swap. One that lost is begun again with what it found.
    async fn swap(&mut self, swap: Resource<Swap>, value: Vec<u8>) -> Result<Option<Resource<Swap>>, Refusal> {
        let Swap { place, key, seen } = self.release_swap(swap)?;
        let place = Place { trace: self.trace, ..place.writable()? };
        check_value(&key, &value)?;
        let again = (place.clone(), key.clone());
        match place.call("swap", move |access, document| access.swap(document, key, seen, value)).await? {
            Swapped::Done => Ok(None),
            Swapped::Found(seen) => self.hold_swap(Swap { place: again.0, key: again.1, seen }).map(Some),
        }
    }
}

impl Bucket {
    /// A number for the place after this key, good until [`CURSORS_MAX`] further ones were given.
    fn give_cursor(&mut self, key: String) -> u64 {
        self.cursors_given += 1;
        self.cursors.push_back((self.cursors_given, key));
        if self.cursors.len() > CURSORS_MAX {
            self.cursors.pop_front();
        }
        self.cursors_given
    }

    fn after(&self, cursor: u64) -> Result<String, Refusal> {
        let found = self.cursors.iter().find(|(number, _)| *number == cursor);
        found.map(|(_, key)| key.clone()).ok_or_else(|| {
            Refusal::Other(format!("the cursor {cursor} is none of the last {CURSORS_MAX} that this bucket gave; list from the beginning"))
        })
    }
}

fn check_key(key: &str) -> Result<(), Refusal> {
    if key.len() > KEY_BYTES_MAX {
        let (shown, bytes) = (shown(key), key.len());
        return Err(Refusal::Other(format!("the key `{shown}…` is {bytes} bytes long, the most is {KEY_BYTES_MAX}")));
    }
    Ok(())
}

fn check_value(key: &str, value: &[u8]) -> Result<(), Refusal> {
    if value.len() > VALUE_BYTES_MAX {
        let (shown, bytes) = (shown(key), value.len());
        return Err(Refusal::Other(format!("the value of key `{shown}` is {bytes} bytes long, the most is {VALUE_BYTES_MAX}")));
    }
    Ok(())
}

fn check_batch<'a>(writes: impl ExactSizeIterator<Item = (&'a String, Option<&'a [u8]>)>) -> Result<(), Refusal> {
    let count = writes.len();
    if count > BATCH_KEYS_MAX {
        return Err(Refusal::Other(format!("the batch has {count} keys, the most is {BATCH_KEYS_MAX}")));
    }
    let mut bytes = 0;
    for (key, value) in writes {
        check_key(key)?;
        check_value(key, value.unwrap_or_default())?;
        bytes += key.len() + value.map_or(0, <[u8]>::len);
    }
    if bytes > BATCH_BYTES_MAX {
        return Err(Refusal::Other(format!("the batch is {bytes} bytes long, the most is {BATCH_BYTES_MAX}")));
    }
    Ok(())
}

fn shown(key: &str) -> String {
    key.chars().take(KEY_CHARS_SHOWN).flat_map(char::escape_debug).collect()
}
