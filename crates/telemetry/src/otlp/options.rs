//! Where telemetry goes and how: what was given, and OpenTelemetry's standard variables.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use edgeward_model::{
    EdgeError,
    limits::{OTLP_HEADERS_MAX, OTLP_INTERVAL_MAX, OTLP_INTERVAL_MIN, OTLP_TIMEOUT_DEFAULT, SPAN_DELAY_DEFAULT},
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use tokio_rustls::rustls::ClientConfig;

use crate::span::Sampler;

/// Time between two exports of metrics, unless a variable says otherwise.
const METRIC_INTERVAL_DEFAULT: Duration = Duration::from_mins(1);
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const METRICS_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const COMPRESSION: &str = "OTEL_EXPORTER_OTLP_COMPRESSION";
const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
const METRIC_INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
const SPAN_DELAY: &str = "OTEL_BSP_SCHEDULE_DELAY";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
const SERVICE_NAME: &str = "OTEL_SERVICE_NAME";
const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const DISABLED: &str = "OTEL_SDK_DISABLED";

/// What is exported, where, and how often.
#[derive(Clone)]
pub struct OtlpOptions {
    /// Where spans go; none for nowhere.
    pub traces: Option<OtlpUrl>,
    /// Where metrics go; none for nowhere.
    pub metrics: Option<OtlpUrl>,
    /// What goes with each request; its values are secrets.
    pub headers: HeaderMap,
    /// The file of the certificate of the authority to trust, instead of those that this machine trusts.
    pub certificate: Option<PathBuf>,
    /// Whom to trust; needed where a URL is of `https`.
    pub tls: Option<Arc<ClientConfig>>,
    /// Longest wait for one request.
    pub timeout: Duration,
    /// Time between two exports of metrics.
    pub metric_interval: Duration,
    /// Longest time for which a span waits for others.
    pub span_delay: Duration,
    /// Which traces are kept.
    pub sampler: Sampler,
    /// What this process is, beside what it knows of itself.
    pub attributes: Vec<(String, String)>,
}

impl fmt::Debug for OtlpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { traces, metrics, .. } = self;
        f.debug_struct("OtlpOptions").field("traces", traces).field("metrics", metrics).finish_non_exhaustive()
    }
}

/// Where a receiver takes one signal: `http://HOST[:PORT]/PATH` or `https://HOST[:PORT]/PATH`. The path is not shown: some have a key there.
#[derive(Clone, PartialEq, Eq)]
pub struct OtlpUrl {
    pub(super) is_tls: bool,
    /// Host without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// Host and port as they were given.
    pub(super) authority: String,
    pub(super) path: String,
}

impl OtlpUrl {
    /// Whether it is reached by TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    }

    /// The place of a signal below that of all.
    fn below(&self, signal: &str) -> Self {
        Self { path: format!("{}/v1/{signal}", self.path.trim_end_matches('/')), ..self.clone() }
    }
}

impl FromStr for OtlpUrl {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        // What it says may be a secret, so it is not repeated.
        let refused = |why: &str| EdgeError::invalid(format!("the address of the receiver of OTLP is not valid: {why}"));
        let uri: Uri = text.parse().map_err(|_| refused("it must be like `http://127.0.0.1:4318`"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refused("it must begin with `http://` or `https://`")),
        };
        let authority = uri.authority().ok_or_else(|| refused("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refused(&format!("a user name or password goes into {HEADERS}")));
        }
        if uri.query().is_some() {
            return Err(refused("it must have no query"));
        }
        Ok(Self {
            is_tls,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path: uri.path().to_owned(),
        })
    }
}

impl fmt::Display for OtlpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}", if self.is_tls { "s" } else { "" }, self.authority)
    }
}

impl fmt::Debug for OtlpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl OtlpOptions {
    /// What was given, and what the variables say; none when nothing is to be exported.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](edgeward_model::ErrorKind::InvalidInput) for what is not valid, not known, or would send secrets in the clear.
    pub fn read(endpoint: Option<&str>, ratio: Option<f64>, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, EdgeError> {
        // An empty variable is as good as none, by OpenTelemetry.
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        if variable(DISABLED).is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let url =
            |name: &str| variable(name).map(|text| text.trim().parse::<OtlpUrl>().map_err(|error| of_variable(name, error))).transpose();
        let base = match endpoint {
            Some(text) => Some(text.parse::<OtlpUrl>()?),
            None => url(ENDPOINT)?,
        };
        let below = |signal| base.as_ref().map(|base| base.below(signal));
        let traces = url(TRACES_ENDPOINT)?.or_else(|| below("traces"));
        let metrics = url(METRICS_ENDPOINT)?.or_else(|| below("metrics"));
        if traces.is_none() && metrics.is_none() {
            return Ok(None);
        }
        for (name, known) in [(PROTOCOL, "http/protobuf"), (COMPRESSION, "none")] {
            if let Some(value) = variable(name).filter(|value| value != known) {
                let why = format!("{name} is `{}`, and only `{known}` is known here", value.escape_debug());
                return Err(EdgeError::invalid(why));
            }
        }
        let headers = variable(HEADERS).map(|text| headers(&text)).transpose()?.unwrap_or_default();
        let is_open = |url: &&OtlpUrl| !url.is_tls && !url.is_loopback();
        if let Some(url) = traces.iter().chain(&metrics).find(is_open)
            && !headers.is_empty()
        {
            let why = format!("what {HEADERS} says is not sent to `{url}`, as others could read it on its way; use `https://`");
            return Err(EdgeError::invalid(why));
        }
        let mut attributes = variable(ATTRIBUTES).map(|text| pairs(ATTRIBUTES, &text)).transpose()?.unwrap_or_default();
        if let Some(name) = variable(SERVICE_NAME) {
            attributes.retain(|(key, _)| key != "service.name");
            attributes.push(("service.name".to_owned(), name));
        }
        let millis = |name: &str, default: Duration| match variable(name) {
            None => Ok(default),
            Some(text) => {
                let millis = text.trim().parse().map(Duration::from_millis);
                millis
                    .map(|time| time.clamp(OTLP_INTERVAL_MIN, OTLP_INTERVAL_MAX))
                    .map_err(|_| EdgeError::invalid(format!("{name} is `{}`, which is no number of milliseconds", text.escape_debug())))
            }
        };
        Ok(Some(Self {
            traces,
            metrics,
            headers,
            certificate: variable(CERTIFICATE).map(PathBuf::from),
            tls: None,
            timeout: millis(TIMEOUT, OTLP_TIMEOUT_DEFAULT)?,
            metric_interval: millis(METRIC_INTERVAL, METRIC_INTERVAL_DEFAULT)?,
            span_delay: millis(SPAN_DELAY, SPAN_DELAY_DEFAULT)?,
            sampler: sampler(ratio, &variable)?,
            attributes,
        }))
    }

    /// Whether it must know whom to trust.
    pub fn needs_tls(&self) -> bool {
        self.traces.iter().chain(&self.metrics).any(OtlpUrl::is_tls)
    }
}

fn of_variable(name: &str, error: EdgeError) -> EdgeError {
    EdgeError::invalid(format!("failed to read {name}: {error}")).with_source(error)
}

fn sampler(ratio: Option<f64>, variable: &impl Fn(&str) -> Option<String>) -> Result<Sampler, EdgeError> {
    let checked = |ratio: f64, what: &str| {
        let is_part = (0.0..=1.0).contains(&ratio);
        if is_part { Ok(ratio) } else { Err(EdgeError::invalid(format!("{what} is {ratio}, and must be from 0 to 1"))) }
    };
    if let Some(ratio) = ratio {
        return Ok(Sampler { is_parent_based: true, ratio: checked(ratio, "the part of the traces that is kept")? });
    }
    let Some(name) = variable(SAMPLER) else { return Ok(Sampler::default()) };
    let (is_parent_based, root) = match name.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, name.as_str()),
    };
    let ratio = match root {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => match variable(SAMPLER_ARGUMENT) {
            None => 1.0,
            Some(text) => {
                let ratio = text.trim().parse().map_err(|_| {
                    EdgeError::invalid(format!("{SAMPLER_ARGUMENT} is `{}`, which is no number from 0 to 1", text.escape_debug()))
                })?;
                checked(ratio, SAMPLER_ARGUMENT)?
            }
        },
        _ => {
            let why = format!(
                "{SAMPLER} is `{}`; known are always_on, always_off and traceidratio, each also after parentbased_",
                name.escape_debug()
            );
            return Err(EdgeError::invalid(why));
        }
    };
    Ok(Sampler { is_parent_based, ratio })
}

/// The header fields of a variable. What they say is told nowhere.
fn headers(text: &str) -> Result<HeaderMap, EdgeError> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs(HEADERS, text)? {
        let field = HeaderName::try_from(&name)
            .map_err(|_| EdgeError::invalid(format!("{HEADERS} names `{}`, which is no header field", name.escape_debug())))?;
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| EdgeError::invalid(format!("{HEADERS} has a value for `{name}` that no header field can have")))?;
        value.set_sensitive(true);
        headers.insert(field, value);
    }
    Ok(headers)
}

/// `key=value,key=value`, percent-encoded as in W3C's Baggage.
fn pairs(variable: &str, text: &str) -> Result<Vec<(String, String)>, EdgeError> {
    let mut pairs = Vec::new();
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let refused = |why: &str| EdgeError::invalid(format!("{variable} is not valid: {why}"));
        let (key, value) = pair.split_once('=').ok_or_else(|| refused("it must be like `key=value,key=value`"))?;
        let decoded = |text: &str| percent_decoded(text.trim()).ok_or_else(|| refused("what follows a `%` must be two hexadecimal digits"));
        let (key, value) = (decoded(key)?, decoded(value)?);
        // What is said last counts.
        pairs.retain(|(known, _)| *known != key);
        pairs.push((key, value));
        if pairs.len() > OTLP_HEADERS_MAX {
            return Err(refused(&format!("it has more than {OTLP_HEADERS_MAX} parts")));
        }
    }
    Ok(pairs)
}

fn percent_decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        rest = after;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(endpoint: Option<&str>, variables: &[(&str, &str)]) -> Result<Option<OtlpOptions>, String> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        OtlpOptions::read(endpoint, None, find).map_err(|error| error.to_string())
    }

    #[test]
    fn it_is_off_unless_somebody_says_where_to() {
        assert!(read(None, &[]).expect("valid").is_none());
        assert!(read(None, &[(ENDPOINT, " ")]).expect("valid").is_none(), "an empty variable is none");
        assert!(read(None, &[(HEADERS, "a=b"), (PROTOCOL, "grpc")]).expect("valid").is_none());
        assert!(read(Some("http://localhost:4318"), &[(DISABLED, "TRUE")]).expect("valid").is_none());
    }

    #[test]
    fn signals_go_below_the_endpoint_or_where_their_own_variable_says() {
        let options = read(Some("http://[::1]:4318/otlp/"), &[(ENDPOINT, "http://other"), (METRICS_ENDPOINT, "https://m.example/in")]);
        let options = options.expect("valid").expect("on");
        let [traces, metrics] = [options.traces, options.metrics].map(|url| url.expect("it goes somewhere"));
        assert_eq!((traces.to_string().as_str(), traces.path.as_str()), ("http://[::1]:4318", "/otlp/v1/traces"));
        assert_eq!((metrics.to_string().as_str(), metrics.path.as_str()), ("https://m.example", "/in"));
        assert!(!format!("{metrics:?}").contains("/in"), "some have a key there");
    }

    #[test]
    fn variables_have_the_meaning_that_opentelemetry_gives_them() {
        let variables = [
            (ENDPOINT, "https://otel.example"),
            (HEADERS, "authorization=Basic%20c2VjcmV0, x-tenant = a"),
            (ATTRIBUTES, "service.name=no,deployment.environment.name=no,deployment.environment.name=test"),
            (SERVICE_NAME, "mill"),
            (TIMEOUT, "2500"),
            (METRIC_INTERVAL, "1"),
            (SAMPLER, "parentbased_traceidratio"),
            (SAMPLER_ARGUMENT, "0.25"),
        ];
        let options = read(None, &variables).expect("valid").expect("on");
        assert!(options.headers["authorization"] == "Basic c2VjcmV0" && options.headers["x-tenant"] == "a");
        assert!(!format!("{options:?} {:?}", options.headers).contains("c2VjcmV0"), "it is a secret");
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(options.attributes, [pair("deployment.environment.name", "test"), pair("service.name", "mill")]);
        assert_eq!((options.timeout, options.metric_interval), (Duration::from_millis(2500), OTLP_INTERVAL_MIN));
        assert_eq!(options.sampler, Sampler { is_parent_based: true, ratio: 0.25 });
        assert!(options.needs_tls());
    }

    #[test]
    fn what_cannot_be_done_is_refused_and_secrets_are_not_repeated() {
        let local = "http://127.0.0.1:4318";
        for (endpoint, variables, why) in [
            ("127.0.0.1:4318", &[][..], "must be"),
            ("ftp://a", &[], "must begin with"),
            ("http://user:c2VjcmV0@a", &[], "goes into OTEL_EXPORTER_OTLP_HEADERS"),
            ("http://collector:4318", &[(HEADERS, "a=c2VjcmV0")], "use `https://`"),
            (local, &[(HEADERS, "c2VjcmV0")], "key=value"),
            (local, &[(HEADERS, "a=%zz")], "hexadecimal"),
            (local, &[(HEADERS, "a b=c2VjcmV0")], "no header field"),
            (local, &[(PROTOCOL, "grpc")], "only `http/protobuf`"),
            (local, &[(COMPRESSION, "gzip")], "only `none`"),
            (local, &[(TIMEOUT, "soon")], "no number of milliseconds"),
            (local, &[(SAMPLER, "sometimes")], "known are"),
            (local, &[(SAMPLER, "traceidratio"), (SAMPLER_ARGUMENT, "2")], "from 0 to 1"),
        ] {
            let refused = read(Some(endpoint), variables).expect_err(why);
            assert!(refused.contains(why) && !refused.contains("c2VjcmV0"), "{refused}");
        }
    }
}
