//! Exporting telemetry over OTLP: the options of a process that serves, and what it says of itself.

use std::sync::Arc;

use edgeward::{
    EdgeError,
    telemetry::{Exporter, OtlpOptions, OtlpUrl, Reading},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{client::tls, daemon::host_name};

// No doc comment: it would become the description of each command that takes the options.
#[derive(Debug, clap::Args)]
pub(crate) struct OtlpArgs {
    /// Receiver of OTLP (HTTP with protobuf) to which metrics and traces are sent, such as `http://127.0.0.1:4318`; the variables OTEL_* of
    /// OpenTelemetry say the rest, as `OTEL_EXPORTER_OTLP_HEADERS` what it wants to see [default: `OTEL_EXPORTER_OTLP_ENDPOINT`, else none]
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Part of the traces that begin here which is kept, from 0 to 1; of others their senders decide [default: `OTEL_TRACES_SAMPLER`, else 1]
    #[arg(long, value_name = "RATIO")]
    otlp_sample_ratio: Option<f64>,
}

impl OtlpArgs {
    /// What is exported and where, if anything is. What is not valid is refused before anything is touched.
    pub(crate) fn read(self) -> Result<Option<OtlpOptions>, EdgeError> {
        let variable = |name: &str| std::env::var(name).ok();
        let options = OtlpOptions::read(self.otlp_endpoint.as_deref(), self.otlp_sample_ratio, variable)?;
        let Some(mut options) = options else { return Ok(None) };
        if options.needs_tls() {
            options.tls = Some(Arc::new(tls::config(options.certificate.as_deref())?));
        }
        Ok(Some(options))
    }
}

/// The export of telemetry. It ends after everything else, so that what the last calls were is told too.
pub(crate) struct Export {
    stop: CancellationToken,
    running: AbortOnDropHandle<()>,
}

impl Export {
    /// Begins to export what `gather` reads, and what is traced.
    pub(crate) fn begin<F>(exporter: Exporter, gather: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Vec<Reading>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let running = AbortOnDropHandle::new(tokio::spawn(exporter.run(gather, stop.clone())));
        Self { stop, running }
    }

    /// Exports what waits, within a bound of time.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.running.await {
            tracing::error!(%error, "the export of telemetry ended with a defect");
        }
    }
}

/// Has this process trace, to export it.
pub(crate) fn exporter(options: OtlpOptions, id: &str) -> Result<Exporter, EdgeError> {
    let attributes = [
        ("service.name", "edgeward"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", id),
        ("host.name", &host_name()),
        ("host.arch", architecture()),
        ("os.type", std::env::consts::OS),
    ];
    let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let shown = |url: Option<&OtlpUrl>| url.map_or_else(|| "nowhere".to_owned(), ToString::to_string);
    tracing::info!(traces = shown(options.traces.as_ref()), metrics = shown(options.metrics.as_ref()), "telemetry is exported");
    Exporter::new(options, &attributes)
}

/// In the words of OpenTelemetry.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
