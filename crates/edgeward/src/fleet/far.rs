//! A node on another machine, as its hub calls it over the backbone. Nothing connects inwards to it: it listens where it connected to.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use edgeward_cluster::{Backbone, BackboneError, Message, Subject, routing::CallFailure, schedule::Try, subject::Name};
use edgeward_model::{
    EdgeError, ErrorKind, FunctionId, NodeId, ScheduleId, TriggerId,
    limits::{FAR_LOG_WAIT_MAX, FAR_QUESTION_TIMEOUT, TRIGGER_STOP_TIMEOUT, TRIGGERS_MAX},
};
use edgeward_runtime::{CallOptions, LogLine, Output, Summary};
use edgeward_topics::DeadLetter;

use crate::{
    schedules::ScheduleHistory,
    services::{
        self, INVOKE, LOGS, LogsAnswer, LogsQuestion, METRICS, SCHEDULES, ScheduleQuestion, TRIGGERS,
        invocation::{Invocation, read_output},
        triggers::{Letter, Page, TriggerQuestion},
    },
    topics::TriggerView,
};

/// An attempt to call a function that failed: what who called sees of it, and what it says of the node.
pub(super) struct Failed {
    pub(super) error: EdgeError,
    pub(super) failure: CallFailure,
}

/// A node that is reached over the backbone.
#[derive(Clone)]
pub(super) struct FarNode {
    pub(super) id: NodeId,
    pub(super) backbone: Arc<dyn Backbone>,
}

impl FarNode {
    pub(super) async fn invoke(
        &self,
        function: FunctionId,
        payload: Bytes,
        options: CallOptions,
        time: Duration,
    ) -> Result<Output, Failed> {
        let invocation = Invocation { function, payload, options, is_idempotent: false, was_tried: false };
        let message = invocation.write().map_err(|error| Failed { failure: CallFailure::unsent(error.kind()), error })?;
        let answer = self.backbone.request(&Subject::to_node(self.id.clone(), INVOKE), message, time).await;
        answer.map(read_output).map_err(|error| Failed { failure: CallFailure::from(&error), error: self.explain(error, time) })
    }

    pub(super) async fn logs(&self, function: FunctionId, after: u64, wait: Duration) -> Result<Vec<LogLine>, EdgeError> {
        let wait = wait.min(FAR_LOG_WAIT_MAX);
        let question = LogsQuestion { function, after, wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) };
        let answer = self.ask(LOGS, services::write(&question), wait + FAR_QUESTION_TIMEOUT).await?;
        Ok(services::read::<LogsAnswer>(&answer, "an answer with logs")?.lines)
    }

    pub(super) async fn summary(&self) -> Result<Summary, EdgeError> {
        let answer = self.ask(METRICS, Message::default(), FAR_QUESTION_TIMEOUT).await?;
        services::read(&answer, "an answer with metrics")
    }

    pub(super) async fn schedule_history(&self, id: ScheduleId) -> Result<ScheduleHistory, EdgeError> {
        let answer = self.ask(SCHEDULES, services::write(&ScheduleQuestion::History(id)), FAR_QUESTION_TIMEOUT).await?;
        services::read(&answer, "an answer with a history")
    }

    pub(super) async fn run_schedule(&self, id: ScheduleId) -> Result<Try, EdgeError> {
        let answer = self.ask(SCHEDULES, services::write(&ScheduleQuestion::Run(id)), FAR_QUESTION_TIMEOUT).await?;
        services::read(&answer, "an answer with a run")
    }

    pub(super) async fn triggers(&self) -> Result<Vec<TriggerView>, EdgeError> {
        let mut views = Vec::<TriggerView>::new();
        loop {
            let after = views.last().map(|last| last.trigger.id.clone());
            let answer = self.ask_of_triggers(&TriggerQuestion::List { after }).await?;
            let page: Page<TriggerView> = services::read(&answer, "an answer with triggers")?;
            // Another than ours may say forever that there are more.
            let is_last = !page.has_more || page.items.is_empty() || views.len() > 2 * TRIGGERS_MAX;
            views.extend(page.items);
            if is_last {
                return Ok(views);
            }
        }
    }

    pub(super) async fn trigger(&self, id: TriggerId) -> Result<TriggerView, EdgeError> {
        services::read(&self.ask_of_triggers(&TriggerQuestion::Show(id)).await?, "an answer with a trigger")
    }

    pub(super) async fn dead_letters(&self, trigger: Option<TriggerId>, after: u64) -> Result<Vec<DeadLetter>, EdgeError> {
        let answer = self.ask_of_triggers(&TriggerQuestion::DeadLetters { trigger, after }).await?;
        let page: Page<Letter> = services::read(&answer, "an answer with dead letters")?;
        page.items.into_iter().map(DeadLetter::try_from).collect()
    }

    pub(super) async fn retry_dead_letter(&self, id: u64) -> Result<(), EdgeError> {
        self.ask_of_triggers(&TriggerQuestion::Retry(id)).await.map(drop)
    }

    pub(super) async fn discard_dead_letter(&self, id: u64) -> Result<(), EdgeError> {
        self.ask_of_triggers(&TriggerQuestion::Discard(id)).await.map(drop)
    }

    /// A trigger that is being changed waits for its calls first.
    async fn ask_of_triggers(&self, question: &TriggerQuestion) -> Result<Message, EdgeError> {
        self.ask(TRIGGERS, services::write(question), TRIGGER_STOP_TIMEOUT + FAR_QUESTION_TIMEOUT).await
    }

    async fn ask(&self, service: Name, message: Message, time: Duration) -> Result<Message, EdgeError> {
        let answer = self.backbone.request(&Subject::to_node(self.id.clone(), service), message, time).await;
        answer.map_err(|error| self.explain(error, time))
    }

    /// The error of a request as a caller may see it.
    fn explain(&self, error: BackboneError, time: Duration) -> EdgeError {
        let id = &self.id;
        let (kind, why) = match &error {
            BackboneError::Answered(_) => return error.into(),
            BackboneError::NoResponder(_) => (ErrorKind::Unavailable, format!("node `{id}` is not connected; it goes on by itself")),
            BackboneError::Timeout(_) => (ErrorKind::Timeout, format!("node `{id}` did not answer within {time:?}; the call may have run")),
            BackboneError::Disconnected(_) => (ErrorKind::Unavailable, format!("the hub lost its connection while it called node `{id}`")),
            BackboneError::TooLarge { bytes, bytes_max, .. } => {
                let message =
                    format!("a call of node `{id}` takes {bytes_max} bytes, not {bytes}; keep large data in documents or fetch it there");
                (ErrorKind::TooLarge, message)
            }
            other => (other.kind(), format!("failed to call node `{id}`")),
        };
        EdgeError::new(kind, why).with_source(error)
    }
}
