//! What a node answers its hub for experiments. It comes and goes by a way of its own, into which nothing is injected: what began can be ended.

use std::sync::Arc;

use edgeward_cluster::{
    Backbone, BackboneError, Message, Service,
    service::{Call, handler},
    subject::Subjects,
};
use edgeward_model::EdgeError;
use edgeward_runtime::blocking;
use edgeward_sync::Documents;

use super::{
    node::{NodeChaos, Tell},
    question::{Answer, Question},
};
use crate::{
    node::Node,
    services::{self, CHAOS},
};

/// What ties the faults of a node to its hub. Dropped, nobody injects others; those that are there go on to their end.
pub(crate) struct ChaosTie {
    chaos: NodeChaos,
    _service: Service,
}

impl ChaosTie {
    /// Begins to answer.
    pub(crate) async fn begin(node: &Node, backbone: &dyn Backbone, tell: Tell) -> Result<Self, BackboneError> {
        let (chaos, documents, id) = (node.chaos().clone(), node.documents().clone(), node.runtime().node().id.clone());
        chaos.tell_by(Some(tell));
        let of = chaos.clone();
        let answering = handler(move |call: Call| answer(of.clone(), documents.clone(), call));
        // One at a time, so that the last word is the last.
        let service = backbone.serve(&Subjects::to_node(id, CHAOS), 1, answering).await?;
        Ok(Self { chaos, _service: service })
    }
}

impl Drop for ChaosTie {
    fn drop(&mut self) {
        self.chaos.tell_by(None);
    }
}

async fn answer(chaos: NodeChaos, documents: Documents, call: Call) -> Result<Message, EdgeError> {
    let answer = match services::read(&call.message, "a question of an experiment")? {
        Question::Check { faults } => faults.iter().try_for_each(|fault| chaos.check(fault)).map(|()| Answer::default())?,
        Question::Inject { run, faults } => chaos.inject(&run, faults).await.map(|()| Answer::default())?,
        Question::Compare { documents: names } => {
            let read = move || {
                let mut answer = Answer::default();
                for name in names {
                    if let Some(state) = documents.document(name.clone()).view()? {
                        answer.checksums.insert(name, state.checksum);
                    }
                }
                Ok(answer)
            };
            blocking(read).await?
        }
    };
    Ok(services::write(&answer))
}

/// Keeps events of a node for its hub.
pub(crate) fn tell_by(outbox: &Arc<crate::uplink::Outbox>) -> Tell {
    let outbox = Arc::clone(outbox);
    Arc::new(move |event| {
        let outbox = Arc::clone(&outbox);
        Box::pin(async move { outbox.tell(event).await })
    })
}
