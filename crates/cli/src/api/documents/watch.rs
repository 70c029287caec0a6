//! `GET /v1/documents/{name}/watch`: the states of a document as they come.
//!
//! Level-triggered: every commit of the store is a reason to look at the document, and what is sent is the state that is
//! found then. Whoever watches sees every state that stays, and not all that pass.

use std::convert::Infallible;

use axum::{
    extract::{Path, State},
    response::sse::{Event, KeepAlive, Sse},
};
use edgeward::{
    Document, EdgeError, ErrorKind, Watch, blocking,
    limits::{WATCH_PAUSE, WATCHES_MAX},
};
use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Api, NamePath, Refusal, etag::ETag, open, wire};

/// The state of a document now and after each change: server-sent events `change`, the ETag as the id, and as data what reading
/// the document answers. The data of a large state is left out, and `data_omitted` is true. A document that does not exist yet is
/// waited for. States that pass quickly are skipped.
#[utoipa::path(
    get, path = "/v1/documents/{name}/watch", operation_id = "watch_document", tag = "documents", params(NamePath),
    responses(
        (status = 200, body = String, content_type = "text/event-stream"),
        (status = 403, description = "The document is the node's own.", body = crate::api::wire::Problem),
        (status = 503, description = "Too many documents are watched; see Retry-After.", body = crate::api::wire::Problem),
    )
)]
pub(crate) async fn watch(
    State(api): State<Api>,
    Path(NamePath { name }): Path<NamePath>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Refusal> {
    static ROOM: Semaphore = Semaphore::const_new(WATCHES_MAX);
    let document = open(&api, &name)?;
    let room = ROOM.try_acquire().map_err(|_| {
        let why = format!("the node is overloaded: documents are watched {WATCHES_MAX} times, which is the most; try again later");
        EdgeError::new(ErrorKind::Overloaded, why)
    })?;
    let watch = Watched { watch: document.watch(), document, sent: None, _room: room };
    let stop = api.stop.clone();
    let changes = stream::unfold(watch, Watched::next).take_until(async move { stop.cancelled().await });
    Ok(Sse::new(changes.map(Ok)).keep_alive(KeepAlive::default()))
}

struct Watched {
    document: Document,
    watch: Watch,
    /// Of the state that was sent last.
    sent: Option<Moment>,
    _room: SemaphorePermit<'static>,
}

impl Watched {
    /// Waits for a state that was not sent.
    async fn next(mut self) -> Option<(Event, Self)> {
        if self.sent.is_some() {
            tokio::time::sleep(WATCH_PAUSE).await;
        }
        loop {
            let document = self.document.clone();
            let event = match self.watch.changed().await {
                Ok(_) => blocking(move || look(&document)).await,
                Err(error) => Err(error),
            };
            match event {
                // What is told of now may have been sent already, as the look before it came late.
                Ok(Some((moment, event))) if self.sent != Some(moment) => {
                    self.sent = Some(moment);
                    return Some((event, self));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(document = %self.document.name(), error = error.chain(), "a watch failed to read its document");
                    return None;
                }
            }
        }
    }
}

/// Tells two states of a document apart: its version, and when it came to be.
type Moment = (u64, Timestamp);

/// The state of the document as an event, and what tells it from others.
fn look(document: &Document) -> Result<Option<(Moment, Event)>, EdgeError> {
    let Some(state) = document.view()? else { return Ok(None) };
    let event = Event::default().event("change").id(ETag::of(&state).to_string()).data(wire::write_event(&state)?);
    Ok(Some(((state.version, state.updated_at), event)))
}
