//! What the hub asks of a node: to run a function, for its log, for what ran, and about its schedules and triggers.

use std::sync::Arc;

use edgeward_cluster::{
    Backbone, Message, Service,
    service::{Call, handler},
    subject::Subjects,
};
use edgeward_model::{
    EdgeError, TriggerId,
    limits::{FAR_CALLS_MAX, FAR_LOG_BYTES_MAX, FAR_LOGS_MAX, FAR_TRIGGERS_MAX},
};
use edgeward_runtime::{Filter, LogLine};
use tracing::Instrument as _;

use crate::{
    node::Node,
    services::{
        self, INVOKE, LOGS, LogsAnswer, LogsQuestion, METRICS, SCHEDULES, ScheduleQuestion, TRIGGERS,
        invocation::{Invocation, write_output},
        shares::Shares,
        triggers::{Letter, TriggerQuestion, write_page},
    },
};

/// Begins to answer.
pub(super) async fn serve(node: &Arc<Node>, backbone: &Arc<dyn Backbone>) -> Result<[Service; 5], EdgeError> {
    let id = node.runtime().node().id.clone();
    let on = |service| Subjects::to_node(id.clone(), service);
    let (of, shares) = (Arc::clone(node), Shares::new(FAR_CALLS_MAX));
    let invoking = handler(move |call| invoke(Arc::clone(&of), Arc::clone(&shares), call));
    let of = Arc::clone(node);
    let logging = handler(move |call| logs(Arc::clone(&of), call));
    let of = Arc::clone(node);
    let counting = handler(move |_call| {
        let summary = of.runtime().metrics().summary(Filter::ALL);
        async move { Ok(services::write(&summary)) }
    });
    let of = Arc::clone(node);
    let scheduling = handler(move |call| scheduled(Arc::clone(&of), call));
    let of = Arc::clone(node);
    let triggering = handler(move |call| triggers(Arc::clone(&of), call));
    Ok([
        backbone.serve(&on(INVOKE), FAR_CALLS_MAX, invoking).await?,
        backbone.serve(&on(LOGS), FAR_LOGS_MAX, logging).await?,
        backbone.serve(&on(METRICS), 1, counting).await?,
        backbone.serve(&on(SCHEDULES), FAR_CALLS_MAX, scheduling).await?,
        backbone.serve(&on(TRIGGERS), FAR_TRIGGERS_MAX, triggering).await?,
    ])
}

async fn invoke(node: Arc<Node>, shares: Arc<Shares>, call: Call) -> Result<Message, EdgeError> {
    let invocation = Invocation::read(call.message)?;
    let span = invocation.span();
    let Invocation { function, payload, options, .. } = invocation;
    let _share = shares.enter(&function)?;
    node.runtime().invoke_with(function.as_str(), payload, options).instrument(span).await.map(write_output)
}

async fn logs(node: Arc<Node>, call: Call) -> Result<Message, EdgeError> {
    let question: LogsQuestion = services::read(&call.message, "a question for logs")?;
    let log = node.runtime().log(question.function.as_str());
    let log = log.ok_or_else(|| EdgeError::function_not_found(question.function.as_str()))?;
    let lines = log.after(question.after, question.wait()).await;
    let mut bytes = 0;
    let fits = |line: &LogLine| {
        bytes += line.text.len() + 128;
        bytes <= FAR_LOG_BYTES_MAX
    };
    Ok(services::write(&LogsAnswer { lines: lines.into_iter().take_while(fits).collect() }))
}

async fn scheduled(node: Arc<Node>, call: Call) -> Result<Message, EdgeError> {
    Ok(match services::read(&call.message, "a question about a schedule")? {
        ScheduleQuestion::History(id) => services::write(&node.schedules().history(id.as_str())?),
        ScheduleQuestion::Run(id) => services::write(&node.schedules().run_now(id.as_str()).await?),
    })
}

async fn triggers(node: Arc<Node>, call: Call) -> Result<Message, EdgeError> {
    let topics = node.topics();
    Ok(match services::read(&call.message, "a question about triggers")? {
        TriggerQuestion::List { after } => {
            let is_after = |id: &TriggerId| after.as_ref().is_none_or(|after| id > after);
            write_page(topics.triggers().await?.into_iter().filter(|view| is_after(&view.trigger.id)))
        }
        TriggerQuestion::Show(id) => services::write(&topics.trigger(&id).await?),
        TriggerQuestion::DeadLetters { trigger, after } => {
            write_page(topics.dead_letters(trigger.as_ref(), after).await?.into_iter().map(Letter::from))
        }
        TriggerQuestion::Retry(id) => topics.retry_dead_letter(id).await.map(|()| Message::default())?,
        TriggerQuestion::Discard(id) => topics.discard_dead_letter(id).await.map(|()| Message::default())?,
    })
}
