//! Every bound of the product in one place, each with its unit in its name.
//!
//! Past a bound the answer is a clear error, never growth.

use std::time::Duration;

/// Longest id of a node or function, in bytes.
pub const ID_BYTES_MAX: usize = 64;
/// Longest name, location, capability or label, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Most capabilities of one node.
pub const CAPABILITIES_MAX: usize = 64;
/// Most labels of one node.
pub const LABELS_MAX: usize = 64;
/// Longest name of a label, in bytes.
pub const LABEL_NAME_BYTES_MAX: usize = 64;
/// Largest metadata of one node, as JSON, in bytes.
pub const METADATA_BYTES_MAX: usize = 64 * 1024;

/// Deepest nesting of arrays and objects in a document value; the outermost one counts as 1.
pub const VALUE_DEPTH_MAX: usize = 64;
/// Most digits of an integer in a document value, the sign apart: what CPython reads and writes unless it is told otherwise.
pub const INTEGER_DIGITS_MAX: usize = 4300;

/// Memory limit of a function unless it says otherwise, in MiB.
pub const MEMORY_MB_DEFAULT: u32 = 128;
/// Largest memory limit of a function, in MiB: all that 32-bit WebAssembly can address.
pub const MEMORY_MB_MAX: u32 = 4096;
/// Deadline of a function unless it says otherwise, in seconds.
pub const TIMEOUT_SECONDS_DEFAULT: f64 = 30.0;
/// Shortest deadline of a function, in seconds.
pub const TIMEOUT_SECONDS_MIN: f64 = 0.001;
/// Longest deadline of a function, in seconds.
pub const TIMEOUT_SECONDS_MAX: f64 = 3600.0;
/// Most environment variables of one function.
pub const ENVIRONMENT_VARS_MAX: usize = 256;
/// Largest environment of one function, names and values together, in bytes.
pub const ENVIRONMENT_BYTES_MAX: usize = 64 * 1024;
/// Most outbound host patterns of one function.
pub const ALLOWED_HOSTS_MAX: usize = 64;
/// Longest pattern of an outbound host, in bytes.
pub const ALLOWED_HOST_BYTES_MAX: usize = 512;
/// Most documents that one function is granted.
pub const DOCUMENT_GRANTS_MAX: usize = 64;
/// Invocations of one function that run at once, unless it says otherwise.
pub const CONCURRENCY_DEFAULT: u32 = 128;
/// Most invocations of one function that may run at once.
pub const CONCURRENCY_MAX: u32 = 1000;
/// Invocations that may wait for their turn, per function, unless it says otherwise.
pub const QUEUE_DEFAULT: u32 = 256;
/// Most invocations that may wait for their turn, per function.
pub const QUEUE_MAX: u32 = 10_000;
/// Most invocations that one reused instance may serve.
pub const REUSE_MAX: u32 = 100_000;
/// Time after which a reused instance that nobody called is dropped.
pub const REUSE_IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Most functions on one node.
pub const FUNCTIONS_MAX: usize = 1000;

/// Largest artifact, in bytes. A Python component with its interpreter is about 18 MB.
pub const ARTIFACT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest request body of an invocation, in bytes.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest response body or standard output of an invocation, in bytes.
pub const RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Request bodies that the API holds at once, in bytes over all of them.
pub const API_BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Largest set of header fields that a guest may build, in bytes as the host counts them.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Standard error that a failure carries: its last bytes.
pub const STDERR_TAIL_BYTES_MAX: usize = 4 * 1024;
/// Longest log line that is kept; the rest of a longer one is cut.
pub const LOG_LINE_BYTES_MAX: usize = 4 * 1024;
/// Log kept per function, in bytes; older lines give way.
pub const LOG_BYTES_MAX: usize = 256 * 1024;
/// Output that one invocation may send to its log, in bytes; more is dropped, and the log says so.
pub const LOG_BYTES_PER_INVOCATION_MAX: usize = 64 * 1024;

/// Host memory that one call from a guest may make the host allocate, in bytes.
pub const HOSTCALL_FUEL_BYTES: usize = 4 * 1024 * 1024;
/// Most WASI resources (streams, headers, requests) that one invocation holds at once.
pub const RESOURCES_MAX: usize = 1000;
/// Most random bytes that a guest gets from one call.
pub const RANDOM_BYTES_MAX: u64 = 64 * 1024;
/// Core instances in one component instance.
pub const INSTANCES_PER_STORE_MAX: usize = 50;
/// Tables in one component instance.
pub const TABLES_PER_STORE_MAX: usize = 20;
/// Linear memories in one component instance.
pub const MEMORIES_PER_STORE_MAX: usize = 8;
/// Largest table, in elements.
pub const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Native stack of one invocation, in bytes; deep recursion ends here.
pub const GUEST_STACK_BYTES: usize = 512 * 1024;

/// Outgoing calls of one function, over all its invocations, that are under way at once; further ones wait their turn.
pub const OUTGOING_CALLS_MAX: usize = 64;
/// Names that are looked up at once, over all functions.
pub const OUTGOING_LOOKUPS_MAX: usize = 16;
/// Longest wait for an outgoing connection, with the wait for a turn.
pub const OUTGOING_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the first byte of an outgoing response.
pub const OUTGOING_FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest pause inside an outgoing response.
pub const OUTGOING_BETWEEN_BYTES_TIMEOUT: Duration = Duration::from_secs(15);
/// Calls of functions to documents that are under way at once, over all functions; further ones wait their turn.
pub const DOCUMENT_CALLS_MAX: usize = 64;
/// Documents that one instance of a function holds open.
pub const BUCKETS_MAX: usize = 16;
/// Compare-and-swap handles that one instance of a function holds; each keeps a value.
pub const SWAPS_MAX: usize = 8;
/// Keys in one answer to a function that lists them.
pub const LISTED_KEYS_MAX: usize = 1000;
/// Places in a list of keys from which a function can go on, for each open document; older ones are forgotten.
pub const CURSORS_MAX: usize = 16;
/// Keys in one batch of a function.
pub const BATCH_KEYS_MAX: usize = 1000;
/// Largest batch of a function, and largest answer to one, in bytes of keys and values.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Longest time in which a client may take nothing of a response that waits for it.
pub const CLIENT_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time in which a client must have sent its request head.
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that one listener holds at once.
pub const CONNECTIONS_MAX: usize = 4096;
/// Longest time for the handshake of a TLS connection, the wait for its turn included.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// TLS handshakes of one process that are under way at once; a client that has not sent a byte yet is not counted, and further
/// ones wait for their turn.
pub const TLS_HANDSHAKES_MAX: usize = 256;
/// Largest file of a certificate or key, in bytes.
pub const TLS_FILE_BYTES_MAX: usize = 1024 * 1024;
/// How often the files of a certificate are looked at for a new one.
pub const TLS_FILES_EVERY: Duration = Duration::from_mins(1);
/// Largest message of the Model Context Protocol over HTTP, in bytes: a document as JSON, and the rest.
pub const MCP_REQUEST_BYTES_MAX: usize = DOCUMENT_BODY_BYTES_MAX + 64 * 1024;
/// What a tool tells of the result of a function, in bytes; more is cut.
pub const MCP_RESULT_BYTES_MAX: usize = 1024 * 1024;
/// API tokens of one node or hub, those that have expired included.
pub const API_TOKENS_MAX: usize = 1000;
/// Longest time for which an API token may be made valid, in seconds: 100 years.
pub const TOKEN_SECONDS_MAX: u64 = 100 * 365 * 24 * 3600;
/// Lines a second about refused calls in the audit log of one listener; the rest is counted and told in one line.
pub const AUDIT_LINES_PER_SECOND_MAX: u32 = 10;
/// Time that running invocations get when the node stops.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Documents on one node.
pub const DOCUMENTS_MAX: usize = 1000;
/// Documents on a hub and on its standby, which hold those of all nodes.
pub const HUB_DOCUMENTS_MAX: usize = 50_000;
/// Patterns of document names that one node declares to want.
pub const INTEREST_PATTERNS_MAX: usize = 64;
/// Live keys in one document.
pub const DOCUMENT_KEYS_MAX: usize = 100_000;
/// Longest key of a document, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Largest value of a key, in bytes of its JSON.
pub const VALUE_BYTES_MAX: usize = 256 * 1024;
/// Changes that wait for `confirm_sync`; past that the older half becomes one.
pub const PENDING_CHANGES_MAX: usize = 1000;
/// Confirmed changes of one document that are kept as its history.
pub const HISTORY_CHANGES_MAX: usize = 100;
/// Changes of one document, in bytes of their data; past that history is forgotten and pending ones become fewer.
pub const CHANGES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Conflicts that are listed of one document.
pub const CONFLICTS_MAX: usize = 1000;
/// Conflicts in one answer, when its request does not say how many.
pub const CONFLICTS_PAGE_DEFAULT: usize = 100;
/// Conflicts in one answer, at most; each has two values of up to 124 KiB.
pub const CONFLICTS_PAGE_MAX: usize = 1000;
/// Largest request body that writes a document, or a part of one, in bytes. Read, it may take a hundred times that.
pub const DOCUMENT_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Documents that are watched at once over HTTP, each counted as often as it is watched.
pub const WATCHES_MAX: usize = 128;
/// Shortest time between two looks of one watch at its document; what changes meanwhile comes as one event.
pub const WATCH_PAUSE: Duration = Duration::from_millis(50);
/// Largest state that an event of a watch carries, in bytes of its JSON. Of a larger one it tells the version only.
pub const WATCH_STATE_BYTES_MAX: usize = 512 * 1024;

/// Largest payload of a message between members, in bytes. With its headers it stays below 1 MiB, which a NATS server takes unless told.
pub const MESSAGE_BYTES_MAX: usize = 960 * 1024;
/// Header fields of one message between members.
pub const MESSAGE_HEADERS_MAX: usize = 32;
/// Largest set of header fields of one message between members, names and values together, in bytes.
pub const MESSAGE_HEADERS_BYTES_MAX: usize = 16 * 1024;
/// Longest text of an error that is answered to another member, in bytes; the rest is cut.
pub const ANSWERED_ERROR_BYTES_MAX: usize = 4 * 1024;
/// Messages that wait in one subscription, or requests in one service, for their turn.
pub const WAITING_MESSAGES_MAX: usize = 1024;
/// Payloads and headers that wait in one subscription or service for their turn, in bytes.
pub const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Requests of one service that are answered at once.
pub const SERVICE_CONCURRENCY_MAX: usize = 1024;
/// Requests of one member that wait for an answer.
pub const REQUESTS_MAX: usize = 16 * 1024;
/// Longest time in which a request is answered: the longest invocation, and its way there and back.
pub const REQUEST_TIMEOUT_MAX: Duration = Duration::from_secs(3600 + 30);
/// Messages on their way to the broker's connection; who sends more waits for its turn.
pub const SENDING_MESSAGES_MAX: usize = 128;
/// Longest wait for a turn to send.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the first bytes of a broker, the whole greeting included.
pub const BROKER_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before the second attempt to connect to a broker, at most; it doubles with each attempt.
pub const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two attempts to connect to a broker.
pub const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Frames of the sync protocol that a hub answers at once.
pub const SYNC_CONCURRENCY: usize = 16;
/// Longest wait for the answer to a frame of the sync protocol.
pub const SYNC_TIMEOUT: Duration = Duration::from_secs(30);
/// Time after which a node asks its hub what there is, poked or not; half of it at least.
pub const PULL_EVERY: Duration = Duration::from_mins(1);
/// Time after which a node compares all it has with its hub.
pub const COMPARE_EVERY: Duration = Duration::from_mins(10);
/// Shortest time between two pokes of a hub; what is committed meanwhile is told by one.
pub const POKE_PAUSE: Duration = Duration::from_millis(20);
/// Shortest time to live of a lease: what a broker can count.
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(1);
/// Longest time to live of a lease.
pub const LEASE_TTL_MAX: Duration = Duration::from_hours(1);

/// How long a node may run a function of which one node at a time may, without asking its hub again.
pub const FUNCTION_LEASE_TTL: Duration = Duration::from_secs(15);
/// Time between two questions of a node for such leases that it has.
pub const FUNCTION_LEASE_ASKED_EVERY: Duration = Duration::from_secs(5);
/// Time between two questions of a node for such leases while it waits for one.
pub const FUNCTION_LEASE_WAITING_EVERY: Duration = Duration::from_millis(500);
/// Longest wait for the answer.
pub const FUNCTION_LEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// Nodes of one fleet.
pub const NODES_MAX: usize = 10_000;
/// Shortest time between two heartbeats of a node.
pub const HEARTBEAT_MIN: Duration = Duration::from_millis(100);
/// Longest time between two heartbeats of a node, for metered links.
pub const HEARTBEAT_MAX: Duration = Duration::from_mins(10);
/// Part of an artifact that one request fetches, in bytes.
pub const ARTIFACT_RANGE_BYTES_MAX: usize = 512 * 1024;
/// Parts of artifacts that a hub reads at once.
pub const ARTIFACT_CONCURRENCY: usize = 16;
/// Longest wait for a part of an artifact.
pub const ARTIFACT_TIMEOUT: Duration = Duration::from_secs(30);
/// Calls of functions from the hub that a node answers at once. One function gets half of them, which is what runs and waits of one that says nothing else.
pub const FAR_CALLS_MAX: usize = 2 * (CONCURRENCY_DEFAULT + QUEUE_DEFAULT) as usize;
/// Questions of the hub for logs that a node answers at once.
pub const FAR_LOGS_MAX: usize = 256;
/// Calls of functions that a hub answers at once for nodes that have them not.
pub const ROUTED_CALLS_MAX: usize = SERVICE_CONCURRENCY_MAX;
/// Questions of the hub about triggers that a node answers at once: an answer with dead letters is large.
pub const FAR_TRIGGERS_MAX: usize = 4;
/// Longest wait for the answer of a function whose deadline is not known where it is called.
pub const CALL_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a hub has waited for a call on a node before it looks whether that is still there.
pub const FAR_PRESENCE_AFTER: Duration = Duration::from_millis(25);
/// Time between two looks at one node, at least.
pub const FAR_PRESENCE_EVERY: Duration = Duration::from_millis(25);
/// Time between two looks at any node, on average, at least.
pub const FAR_PRESENCE_SPACING: Duration = Duration::from_millis(1);
/// How long a node may answer nothing before a call on it that may run twice goes to another, when its answers come quickly and other nodes are heard; else four
/// times as long as these take.
pub const FAR_SILENCE_MIN: Duration = Duration::from_millis(75);
/// How much longer what was on its way from a node is waited for, after its broker has answered.
pub const FAR_SILENCE_GRACE: Duration = Duration::from_millis(10);
/// The same of a node of which nothing is known, and of one to which the way is long; twice as long as its answers took of late, when that is longer.
pub const FAR_SILENCE_MAX: Duration = Duration::from_millis(500);
/// Longest wait for the answer to such a look, which tells how long the way to the node takes.
pub const FAR_LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a node may be away before a call on it that must not run twice is given up.
pub const FAR_PRESENCE_PATIENCE: Duration = Duration::from_secs(1);
/// Longest wait for the answer to a question about a node that it answers from memory.
pub const FAR_QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time in which a node waits for a line of a log before it answers that there is none.
pub const FAR_LOG_WAIT_MAX: Duration = Duration::from_secs(20);
/// Lines of a log in one answer to the hub, in bytes of their text.
pub const FAR_LOG_BYTES_MAX: usize = 256 * 1024;

/// Events that the hub of a fleet keeps.
pub const FLEET_EVENTS_MAX: usize = 10_000;
/// Events that wait to be written; more are counted and dropped.
pub const FLEET_EVENTS_WAITING_MAX: usize = 4096;
/// Events in one answer of the API.
pub const FLEET_EVENTS_PAGE_MAX: usize = 1000;
/// Longest message of an event, in bytes.
pub const EVENT_MESSAGE_BYTES_MAX: usize = 1024;
/// Longest data of an event, as JSON, in bytes.
pub const EVENT_DATA_BYTES_MAX: usize = 16 * 1024;
/// How far the clock of a node may be ahead of its hub's before its events are put where the hub's clock is.
pub const EVENT_AHEAD_MAX: Duration = Duration::from_mins(1);
/// Events and samples that wait on a node for its hub; past that the oldest of the lowest priority goes first.
pub const OUTBOX_ITEMS_MAX: usize = 10_000;
/// Events and samples in one request to the hub.
pub const OUTBOX_BATCH_MAX: usize = 200;
/// Time between two samples of a node's metrics.
pub const METRICS_SAMPLE_EVERY: Duration = Duration::from_mins(1);

/// Longest life of a join token.
pub const JOIN_TOKEN_TTL_MAX: Duration = Duration::from_mins(15);
/// Longest text of a join token, in bytes.
pub const JOIN_TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Addresses of servers in one join token.
pub const SERVERS_MAX: usize = 32;
/// Time after which a node that asked to join gives up; within it, it asks again when no answer came.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Life of a member's working token, unless the fleet says otherwise.
pub const CREDENTIALS_TTL_DEFAULT: Duration = Duration::from_hours(1);
/// Shortest life of a working token. Its times are whole seconds.
pub const CREDENTIALS_TTL_MIN: Duration = Duration::from_secs(4);
/// Longest life of a working token.
pub const CREDENTIALS_TTL_MAX: Duration = Duration::from_hours(7 * 24);
/// Longest pause of a node that was refused before it asks again; half of it at least.
pub const REFUSED_PAUSE_MAX: Duration = Duration::from_mins(1);
/// Time in which a broker that was started listens.
pub const BROKER_START_TIMEOUT: Duration = Duration::from_secs(15);
/// Time in which a broker that was told to stop ends; then it is killed.
pub const BROKER_STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause before a broker that ended is started the second time, which doubles with each time.
pub const BROKER_RESTART_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause before a broker is started again that had listened.
pub const BROKER_RESTART_PAUSE_MAX: Duration = Duration::from_millis(500);
/// Longest pause before a broker is started again that never listened.
pub const BROKER_RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Files of a fleet in the data folder of a node or hub that a backup takes.
pub const FLEET_FILES_MAX: usize = 64;
/// Uses of join tokens that a hub remembers at once: those whose tokens have not ended.
pub const USED_TOKENS_MAX: usize = 10_000;
/// Requests to join, and as many to renew, that a hub answers at once.
pub const RECEPTION_CONCURRENCY: usize = 64;
/// Time that the other processes of a node have to say that they are there.
pub const PRESENCE_PAUSE: Duration = Duration::from_secs(2);
/// Processes of one node that a hub remembers.
pub const PROCESSES_MAX: usize = 8;
/// Longest wait until the NATS servers know whose credentials are revoked; they are told later all the same.
pub const REVOCATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Life of a NATS server's certificate, in days.
pub const SERVER_CERTIFICATE_DAYS: u16 = 365;

/// Largest `edgeward.toml`, in bytes: a whole environment, and the rest.
pub const PROJECT_FILE_BYTES_MAX: usize = 256 * 1024;
/// Keys that a fleet trusts, and keys that a node is given.
pub const TRUSTED_KEYS_MAX: usize = 100;
/// Functions whose counters a node keeps, those included that it ran once.
pub const SIGNED_FUNCTIONS_MAX: usize = 10_000;
/// Largest file of a signature, of a private key, or of public keys, in bytes.
pub const SIGNING_FILE_BYTES_MAX: usize = 64 * 1024;

/// Nodes that one target names.
pub const TARGET_NODES_MAX: usize = 1000;
/// Waves of one strategy.
pub const WAVES_MAX: usize = 16;
/// How many times larger a batch may be than the one before it.
pub const ROLLOUT_GROWTH_MAX: u32 = 100;
/// Longest time that a batch must do well, in seconds: a week.
pub const BAKE_SECONDS_MAX: f64 = 7.0 * 24.0 * 3600.0;
/// Longest time without progress before a rollout is paused, in seconds: a month.
pub const PROGRESS_SECONDS_MAX: f64 = 30.0 * 24.0 * 3600.0;
/// Longest path of a probe, with its query, in bytes.
pub const PROBE_PATH_BYTES_MAX: usize = 1024;
/// What a rollout keeps of a message of a node, in bytes.
pub const NODE_MESSAGE_BYTES_MAX: usize = 200;
/// Nodes whose refusal of a revision a rollout keeps, with why; with so many no other gets it late. They fit into one value together with
/// the rest of a deployment.
pub const REFUSED_NODES_MAX: usize = 250;
/// Function of one deployment, in bytes of its JSON. What a node is assigned has it and the one before, in one value.
pub const DEPLOYED_FUNCTION_BYTES_MAX: usize = 120 * 1024;
/// Target and strategy of one deployment, in bytes of their JSON.
pub const DEPLOYMENT_BYTES_MAX: usize = 80 * 1024;
/// Revisions of one function that a hub keeps, those in use always.
pub const REVISIONS_MAX: usize = 10;
/// Deployments of one fleet.
pub const DEPLOYMENTS_MAX: usize = 1000;
/// Rollouts of one function that a hub keeps after they have ended.
pub const ROLLOUTS_KEPT_MAX: usize = 20;

/// Functions whose calls one router knows the way of.
pub const ROUTES_MAX: usize = 10_000;
/// Largest weight of a node.
pub const WEIGHT_MAX: u32 = 1000;
/// Attempts of one call, the first included, unless its function says otherwise.
pub const ATTEMPTS_DEFAULT: u32 = 3;
/// Most attempts of one call, the first included.
pub const ATTEMPTS_MAX: u32 = 10;
/// Shortest longest pause before the second attempt, in seconds.
pub const BACKOFF_SECONDS_MIN: f64 = 0.001;
/// Longest pause before another attempt, in seconds.
pub const BACKOFF_SECONDS_MAX: f64 = 60.0;
/// Retries that a function has in a second beside its budget, so that one that is called seldom has some; as in Finagle.
pub const RETRIES_PER_SECOND_FREE: u32 = 10;
/// Time over which calls and retries are weighed against each other.
pub const RETRY_WINDOW: Duration = Duration::from_secs(10);
/// Shortest time over which a breaker looks at failures, in seconds.
pub const BREAKER_WINDOW_SECONDS_MIN: f64 = 0.1;
/// Longest time over which a breaker looks at failures, in seconds.
pub const BREAKER_WINDOW_SECONDS_MAX: f64 = 600.0;
/// Shortest time for which a breaker opens, in seconds.
pub const BREAKER_OPEN_SECONDS_MIN: f64 = 0.01;
/// Longest time for which a breaker opens, in seconds.
pub const BREAKER_OPEN_SECONDS_MAX: f64 = 3600.0;
/// Most calls without which a breaker does not judge.
pub const BREAKER_CALLS_MAX: u32 = 100_000;
/// Most calls by which a breaker tries whether a node does well again.
pub const BREAKER_PROBES_MAX: u32 = 100;
/// Calls of one function that are under way to one node, unless it says otherwise: what a node runs and has waiting of one that says nothing else.
pub const CALLS_PER_NODE_DEFAULT: u32 = CONCURRENCY_DEFAULT + QUEUE_DEFAULT;
/// Calls of one function that are under way to all nodes, unless it says otherwise.
pub const CALLS_PER_FUNCTION_DEFAULT: u32 = 4096;
/// Most calls of one function that may be under way.
pub const CALLS_PER_FUNCTION_MAX: u32 = 16 * 1024;
/// What is kept of the last error of a node, in bytes; the rest is cut.
pub const ROUTE_ERROR_BYTES_MAX: usize = 256;

/// Longest name of a topic, and longest filter of topics, in bytes.
pub const TOPIC_BYTES_MAX: usize = 512;
/// Most levels of a topic or filter: what its `/` separate.
pub const TOPIC_LEVELS_MAX: usize = 32;
/// Largest payload of a message of a topic, in bytes. With the rest of the message it fits into one between members.
pub const TOPIC_PAYLOAD_BYTES_MAX: usize = 512 * 1024;
/// Longest key, content type or publisher of a message, in bytes.
pub const TOPIC_FIELD_BYTES_MAX: usize = 256;
/// Most attributes of one message.
pub const TOPIC_ATTRIBUTES_MAX: usize = 32;
/// Largest set of attributes of one message, names and values together, in bytes.
pub const TOPIC_ATTRIBUTES_BYTES_MAX: usize = 8 * 1024;
/// Messages that a log of topics keeps, unless its owner says otherwise.
pub const TOPIC_LOG_MESSAGES_DEFAULT: u64 = 1_000_000;
/// Messages that a log of topics keeps, in bytes, unless its owner says otherwise.
pub const TOPIC_LOG_BYTES_DEFAULT: u64 = 1024 * 1024 * 1024;
/// Age up to which a log of topics keeps messages, unless its owner says otherwise.
pub const TOPIC_LOG_AGE_DEFAULT: Duration = Duration::from_hours(7 * 24);
/// Most messages that a log of topics may be told to keep.
pub const TOPIC_LOG_MESSAGES_MAX: u64 = 100_000_000;
/// Least bytes that a log of topics may be told to keep: the largest message has room.
pub const TOPIC_LOG_BYTES_MIN: u64 = 1024 * 1024;
/// Most bytes that a log of topics may be told to keep.
pub const TOPIC_LOG_BYTES_MAX: u64 = 1024 * 1024 * 1024 * 1024;
/// Most days for which a log of topics may be told to keep messages.
pub const TOPIC_LOG_DAYS_MAX: u64 = 3650;
/// Writes that wait for a commit of a log of topics; who writes more waits for its turn.
pub const TOPIC_WRITES_WAITING_MAX: usize = 4096;
/// Writes that wait for a commit of a log of topics, in bytes; who writes more waits for its turn.
pub const TOPIC_WRITES_WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Messages in one read of a log of topics.
pub const TOPIC_READ_MESSAGES_MAX: usize = 256;
/// Messages in one read of a log of topics, in bytes; the first one comes whatever its size.
pub const TOPIC_READ_BYTES_MAX: usize = 256 * 1024;
/// Messages that one read of a log of topics looks at.
pub const TOPIC_SCAN_MESSAGES_MAX: u64 = 20_000;
/// The newest messages of a log, which are in memory for those who follow it.
pub const TOPIC_RECENT_MESSAGES_MAX: usize = 8192;
/// The newest messages of a log that are in memory, in bytes.
pub const TOPIC_RECENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Positions, and messages that are not durable, that wait for one subscriber.
pub const SUBSCRIBER_WAITING_MAX: usize = 1024;
/// Messages that are not durable that wait for one subscriber, in bytes.
pub const SUBSCRIBER_WAITING_BYTES_MAX: usize = 1024 * 1024;
/// Messages that are in memory for one subscriber whatever is there for others, in bytes.
pub const SUBSCRIBER_OWN_BYTES: usize = 16 * 1024;
/// Messages that are not durable that wait for all subscribers of one log together, in bytes, each counted once; past that each gets
/// what fits into its own bytes, and the rest is dropped for it.
pub const SUBSCRIBERS_WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What all subscribers of one log together have read of it and not taken, in bytes; past that each reads as many as its own at once.
pub const SUBSCRIBERS_READ_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest time for which who publishes what is not durable waits for one subscriber that is behind; then that one misses some.
pub const SUBSCRIBER_PATIENCE: Duration = Duration::from_millis(50);
/// Filters of one subscriber.
pub const SUBSCRIBER_FILTERS_MAX: usize = 256;
/// Levels of all filters of the subscribers of one log that are kept in memory, those that filters have in common once.
pub const SUBSCRIBER_LEVELS_MAX: usize = 131_072;
/// Subscribers of one log at once.
pub const SUBSCRIBERS_MAX: usize = 8192;
/// Epochs of the log of one other member of which a log of topics remembers how far it took them; the longest unused is forgotten.
pub const TOPIC_ORIGIN_EPOCHS_MAX: u32 = 16;
/// Messages in one exchange between a node and its hub.
pub const TOPIC_EXCHANGE_MESSAGES_MAX: usize = 256;
/// Messages in one exchange between a node and its hub, in bytes; the first one comes whatever its size.
pub const TOPIC_EXCHANGE_BYTES_MAX: usize = 256 * 1024;
/// Exchanges of messages that a hub has under way at once, of those that bring messages and of those that ask for them each.
pub const TOPIC_EXCHANGES_MAX: usize = 32;
/// Longest wait for the answer to one exchange of messages.
pub const TOPIC_EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Filters by which a node forwards messages, or imports them, each.
pub const TOPIC_SHARE_FILTERS_MAX: usize = 64;
/// Longest wait until what a hub published to its servers is acknowledged there.
pub const TOPIC_STREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that one hub has under way to its servers.
pub const TOPIC_STREAM_SENDING_MAX: usize = 4096;
/// Durable subscriptions of one log.
pub const DURABLE_SUBSCRIPTIONS_MAX: usize = 10_000;
/// Longest name of a durable subscription, in bytes.
pub const SUBSCRIPTION_NAME_BYTES_MAX: usize = 256;
/// Topics with a retained message.
pub const RETAINED_TOPICS_MAX: u64 = 10_000;
/// Retained messages, in bytes.
pub const RETAINED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Dead letters that are kept; past that the oldest gives way.
pub const DEAD_LETTERS_MAX: u64 = 10_000;
/// Dead letters that are kept, in bytes; past that the oldest gives way.
pub const DEAD_LETTERS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Dead letters, topics or retained messages in one answer.
pub const TOPIC_PAGE_MAX: usize = 1000;
/// Messages of one durable subscription that are read and not yet done.
pub const DELIVERY_WINDOW_MAX: usize = 1024;
/// Messages of one durable subscription that are read and not yet done, in bytes.
pub const DELIVERY_WINDOW_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Messages of one durable subscription that are done above one that is not.
pub const DELIVERY_DONE_MAX: usize = 4096;
/// Most messages of one durable subscription that are handled at once.
pub const DELIVERY_CONCURRENCY_MAX: usize = 256;
/// Most attempts to deliver one message.
pub const DELIVERY_ATTEMPTS_MAX: u32 = 100;
/// Shortest time between two writes of how far a durable subscription got.
pub const DELIVERY_ACKNOWLEDGE_EVERY: Duration = Duration::from_millis(100);
/// Triggers that a node has of itself, and those of one fleet: a node may have both.
pub const TRIGGERS_MAX: usize = 256;
/// Filters of one trigger.
pub const TRIGGER_FILTERS_MAX: usize = 32;
/// Messages that a trigger has handled at once, unless it says otherwise.
pub const TRIGGER_CONCURRENCY_DEFAULT: u32 = 8;
/// Longest pause between two attempts of a trigger, in milliseconds: an hour.
pub const TRIGGER_PAUSE_MS_MAX: u64 = 3600 * 1000;
/// Filters of topics to which the holder of one token publishes, and of those that it follows, each.
pub const TOKEN_FILTERS_MAX: usize = 32;
/// Topics that are followed at once over HTTP, each counted as often as it is followed.
pub const TOPIC_FOLLOWERS_MAX: usize = 256;
/// Largest description of a trigger, in bytes.
pub const TRIGGER_BODY_BYTES_MAX: usize = 64 * 1024;
/// How often a trigger whose function is not there looks for it.
pub const TRIGGER_LOOK_EVERY: Duration = Duration::from_millis(250);
/// Pause before a trigger begins anew that could not go on.
pub const TRIGGER_RESTART_PAUSE: Duration = Duration::from_secs(5);
/// Longest wait for the calls of a trigger that ends; those that take longer are broken off, and come again.
pub const TRIGGER_STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest packet of MQTT, in bytes: a message, and the rest.
pub const MQTT_PACKET_BYTES_MAX: usize = TOPIC_PAYLOAD_BYTES_MAX + 16 * 1024;
/// Largest packet of MQTT that is no message and has no filters, in bytes; also that by which a client connects, its will included.
pub const MQTT_CONTROL_BYTES_MAX: usize = 16 * 1024;
/// Largest packet of MQTT by which a client subscribes or unsubscribes, in bytes: as many and as long filters as may be, and the rest.
pub const MQTT_SUBSCRIBE_BYTES_MAX: usize = SUBSCRIBER_FILTERS_MAX * (TOPIC_BYTES_MAX + 3) + MQTT_CONTROL_BYTES_MAX;
/// Bytes of large packets that are being received, over all clients of MQTT; more wait for their turn.
pub const MQTT_LARGE_PACKETS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest time for the rest of a packet whose first bytes are here.
pub const MQTT_PACKET_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time in which a client must have sent its CONNECT.
pub const MQTT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Clients of MQTT that are connected at once.
pub const MQTT_CONNECTIONS_MAX: usize = 4096;
/// Longest id of a client of MQTT, in bytes.
pub const MQTT_CLIENT_ID_BYTES_MAX: usize = 128;
/// Messages from one client of MQTT that wait for their commit.
pub const MQTT_RECEIVE_MAX: u16 = 256;
/// Messages to one client of MQTT that wait for its acknowledgement.
pub const MQTT_IN_FLIGHT_MAX: u16 = 128;
/// What waits to be sent to one client of MQTT before nothing more is read for it, in bytes.
pub const MQTT_SENDING_BYTES_MAX: usize = 64 * 1024;
/// What may wait to be sent to each client of MQTT whatever waits for others, in bytes.
pub const MQTT_SENDING_OWN_BYTES: usize = 16 * 1024;
/// What waits to be sent to all clients of MQTT together beyond that, in bytes; more stays for its turn where it also stays for one client
/// that is slow: in the log, or in the queue of what is not durable.
pub const MQTT_SENDING_ALL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest time for which a session of MQTT is kept without its client.
pub const MQTT_SESSION_EXPIRY_MAX: Duration = Duration::from_hours(7 * 24);
/// Longest time of silence that a client of MQTT 5 may ask for, and what one gets that asks for none. One of version 3 cannot be told less
/// than it asks for.
pub const MQTT_KEEP_ALIVE_MAX: Duration = Duration::from_hours(1);
/// Time between two writes of how far a session of MQTT got.
pub const MQTT_ACKNOWLEDGE_EVERY: Duration = Duration::from_secs(1);
/// Longest wait until the former connection of a client of MQTT has ended.
pub const MQTT_TAKEOVER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a node looks for sessions of MQTT whose clients have been away for too long.
pub const MQTT_EXPIRY_LOOK_EVERY: Duration = Duration::from_mins(1);
/// How often a node looks for clients of MQTT whose tokens are not valid any more.
pub const MQTT_TOKENS_LOOK_EVERY: Duration = Duration::from_secs(2);
/// News of clients of MQTT that wait to be written to the log of topics; past that they are dropped.
pub const MQTT_NEWS_WAITING_MAX: usize = 1024;
/// Longest time after which the will of a client of MQTT is published, whatever it asks for.
pub const MQTT_WILL_DELAY_MAX: Duration = Duration::from_hours(24);
/// Schedules of one node, and of one fleet.
pub const SCHEDULES_MAX: usize = 1000;
/// Longest text of when a schedule is due, in bytes.
pub const WHEN_BYTES_MAX: usize = 256;
/// Longest name of a time zone, in bytes.
pub const ZONE_BYTES_MAX: usize = 64;
/// Longest interval of a schedule, in seconds: a year. The shortest is a second.
pub const INTERVAL_SECONDS_MAX: u32 = 366 * 24 * 3600;
/// Longest time by which a run may begin later than it is due so that not all begin at once, in seconds.
pub const JITTER_SECONDS_MAX: u32 = 24 * 3600;
/// Largest payload of a schedule, in bytes.
pub const SCHEDULE_PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Due times that are made up for, one after the other, after a time in which none could be.
pub const CATCH_UP_RUNS_MAX: u32 = 100;
/// Tries of one due time.
pub const SCHEDULE_ATTEMPTS_MAX: u32 = 10;
/// Pause before the second try of a due time, which doubles with each further one.
pub const SCHEDULE_RETRY_PAUSE_MIN: Duration = Duration::from_secs(5);
/// Longest pause before another try of a due time.
pub const SCHEDULE_RETRY_PAUSE_MAX: Duration = Duration::from_mins(5);
/// How late a run may begin and still count as in time.
pub const SCHEDULE_LATE_MAX: Duration = Duration::from_mins(1);
/// Runs of one schedule that are kept.
pub const SCHEDULE_RUNS_KEPT_MAX: usize = 50;
/// Longest message of a run, in bytes; the rest is cut.
pub const RUN_MESSAGE_BYTES_MAX: usize = 256;
/// Due times that are counted when they were missed; of more it is told that there were at least so many.
pub const MISSED_COUNTED_MAX: u64 = 1000;
/// Times between which the clock of a node jumped that its schedules remember; the oldest are forgotten, as if they had been lived through.
pub const CLOCK_JUMPS_MAX: usize = 16;

/// Longest time for which one fault is injected, in seconds; each ends by itself.
pub const FAULT_SECONDS_MAX: u32 = 3600;
/// Longest delay that a fault injects, in milliseconds.
pub const FAULT_DELAY_MS_MAX: u32 = 60_000;
/// Furthest that a fault moves our clock, in seconds either way: a day.
pub const CLOCK_SKEW_SECONDS_MAX: i64 = 24 * 3600;
/// Faults that one node injects at once, and faults of one experiment.
pub const FAULTS_MAX: usize = 32;
/// Hypotheses, conditions to abort, and loads of one experiment, each.
pub const EXPERIMENT_PARTS_MAX: usize = 32;
/// Longest experiment, in seconds.
pub const EXPERIMENT_SECONDS_MAX: u32 = 2 * 3600;
/// Largest file of an experiment, in bytes.
pub const EXPERIMENT_BYTES_MAX: usize = 64 * 1024;
/// Longest description of an experiment, in bytes.
pub const DESCRIPTION_BYTES_MAX: usize = 1024;
/// Most calls a second of one load of an experiment.
pub const LOAD_PER_SECOND_MAX: u32 = 10_000;
/// Most calls of one load that are under way at once.
pub const LOAD_CONCURRENCY_MAX: u32 = 1024;

/// Points of one metric: what comes after them is added up, or left out where it cannot be.
pub const METRIC_POINTS_MAX: usize = 4096;
/// Spans that wait to be exported; past that they are dropped.
pub const SPANS_WAITING_MAX: usize = 2048;
/// Spans of one export.
pub const SPANS_BATCH_MAX: usize = 512;
/// Longest text of a span, in bytes; the rest is cut.
pub const SPAN_TEXT_BYTES_MAX: usize = 256;
/// Longest time for which a span waits for others, unless its owner says otherwise.
pub const SPAN_DELAY_DEFAULT: Duration = Duration::from_secs(5);
/// Longest wait for one export, unless its owner says otherwise.
pub const OTLP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Shortest time between two exports, and for one.
pub const OTLP_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Longest time between two exports, and for one.
pub const OTLP_INTERVAL_MAX: Duration = Duration::from_hours(24);
/// Header fields that go with an export, and attributes that say what exports.
pub const OTLP_HEADERS_MAX: usize = 64;
/// Largest request of metrics, in bytes, about; one metric is not divided.
pub const OTLP_REQUEST_BYTES: usize = 1024 * 1024;
/// Largest answer of a receiver of telemetry, in bytes.
pub const OTLP_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Shortest time for which a receiver of telemetry that is away is left alone.
pub const OTLP_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest time for which a receiver of telemetry that is away is left alone.
pub const OTLP_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Longest wait for the last export of a process that stops.
pub const OTLP_STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Experiments of which a hub keeps the report; the oldest gives way.
pub const EXPERIMENTS_KEPT_MAX: usize = 20;
/// Largest report that is kept, in bytes; of a larger one only some points are.
pub const REPORT_BYTES_MAX: usize = 192 * 1024;
/// Nodes that a report of an experiment lists for one fault; of the others it says how many there are.
pub const REPORT_NODES_MAX: usize = 50;
/// Longest wait for a node to answer a question of an experiment.
pub const CHAOS_TIMEOUT: Duration = Duration::from_secs(2);
/// Time from when a node is told that it crashes until it does, so that its answer is out.
pub const CRASH_PAUSE: Duration = Duration::from_millis(100);
