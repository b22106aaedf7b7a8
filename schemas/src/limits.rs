//! Every bound of Tidegate: value, unit and reason. A queue, body, batch, epoch, cache, script or table without an entry
//! here is a defect. Settings may lower or raise some of them; the value here is the default or the hard ceiling, as named.

/// One bound.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// The name of the constant.
    pub name: &'static str,
    /// The value.
    pub value: u64,
    /// The unit of the value.
    pub unit: &'static str,
    /// Why it exists and why it is this large.
    pub reason: &'static str,
}

macro_rules! limits {
    ($($name:ident = $value:expr, $unit:literal, $reason:literal;)*) => {
        $(#[doc = concat!($reason, " (", $unit, ")")] pub const $name: usize = $value;)*
        /// All bounds, in the order of an event's way.
        pub const ALL: &[Limit] = &[$(Limit { name: stringify!($name), value: $name as u64, unit: $unit, reason: $reason }),*];
    };
}

limits! {
    // edge
    CONNECTIONS_MAX = 4_096, "connections", "a connection costs a few kB and a file; past it the kernel's backlog waits";
    CONNECTIONS_PER_ADDRESS_MAX = 1_024, "connections", "one address must not take every place; fleets behind one NAT still fit";
    HEAD_BYTES_MAX = 16_384, "bytes", "request head; a trace context, a token and cookies of a proxy fit";
    HEAD_SECONDS_MAX = 5, "seconds", "a head that trickles in is a hostile or broken client";
    BODY_SECONDS_MAX = 30, "seconds", "a body of the largest size at 0.5 MB/s";
    IDLE_SECONDS_MAX = 75, "seconds", "a kept-alive connection without a request";
    HTTP2_STREAMS_MAX = 128, "streams", "per connection; each may hold a body";
    HEADERS_MAX = 100, "headers", "of one request; hyper's own figure";
    READ_BUFFER_BYTES_MAX = 64 << 10, "bytes", "read at once from one connection, and a head that is refused before it is counted";
    BODY_BYTES_PER_SECOND_MIN = 4_096, "bytes/s", "a body slower than this gets no more than a few seconds: slow links still fit";
    LINGER_SECONDS_MAX = 2, "seconds", "an unwanted body is read away for so long, that its sender sees the answer";
    PUBLISH_SECONDS_MAX = 30, "seconds", "a log that does not answer is away: the sender may try again";
    SHUTDOWN_SECONDS_MAX = 20, "seconds", "requests in flight may end after the listener has closed";
    HTTP2_RESETS_MAX = 20, "streams", "reset before they were served: rapid reset ends the connection";
    HTTP2_WINDOW_BYTES = 512 << 10, "bytes", "unread bytes of one connection, and of each stream";
    IDEMPOTENCY_KEY_BYTES_MAX = 192, "bytes", "with hash and index it stays an event id";
    BODY_WIRE_BYTES_MAX = 16 << 20, "bytes", "a request as sent; larger batches gain nothing";
    BODIES_IN_FLIGHT_BYTES_MAX = 64 << 20, "bytes", "all bodies being read or awaiting the log: the edge's memory";
    EVENT_BYTES_MAX = 512 << 10, "bytes", "one event as sent: it must fit into a record of the log with its envelope, and into a rejection";
    EVENT_TOO_LARGE_BYTES_KEPT = 64 << 10, "bytes", "the beginning of an event above the bound, kept with its rejection";
    EVENTS_PER_REQUEST_MAX = 50_000, "events", "the answer lists refused ones, and one request must not make an epoch of its own too large";
    REFUSALS_PER_ANSWER_MAX = 1_000, "entries", "refused events named in an answer; all of them become rows";
    REFUSAL_HEADER_BYTES_MAX = 64 << 10, "bytes", "the refused list of one record: past it a request is refused as a whole";
    DOCUMENT_NODES_KEPT = 4_096, "nodes", "of the tape that each thread parses to, kept for the next document; longer ones are rare";
    DOCUMENT_FORM_NODES_MAX = 512, "nodes", "of a form that is kept; documents that are longer are lists, which are seldom of one length";
    DOCUMENT_FORMS_KEPT = 4, "forms", "of one source's documents in an epoch: join, status and telemetry take turns";
    DOCUMENT_FORMS_MADE_MAX = 32, "forms", "of one source's documents in an epoch, found one after the other, before no more are looked for";
    JSON_DEPTH_MAX = 64, "levels", "nesting of a document; real payloads stay below ten";
    META_BYTES_MAX = 4_096, "bytes", "headers and query values that the source lets through to scripts";
    EVENT_ID_BYTES_MAX = 256, "bytes", "a sender's event id";
    EVENT_TYPE_BYTES_MAX = 256, "bytes", "the type of an event: tables keep the different ones in a dictionary";
    ASSET_ID_BYTES_MAX = 128, "bytes", "an asset's id as the source sends it";
    RECEIPT_POSITIONS_MAX = 64, "records", "a request of the largest body cut at 900 KiB stays far below";
    REPEATED_WARNING_SECONDS = 60, "seconds", "between two warnings about the same kind of refusal: what happened meanwhile is counted in the later one";
    RECENT_COMMITS_BYTES_MAX = 4 << 20, "bytes", "of commit records of all partitions, kept for receipts of requests that have just come; older ones are searched for";
    RECEIPT_WAIT_SECONDS_MAX = 60, "seconds", "Prefer: wait is capped; a held request holds its connection";

    // log
    RECORD_BYTES_MAX = 900 << 10, "bytes", "one record of any log, below the 1 MiB that Kafka takes by default";
    ROW_BYTES_MAX = 640 << 10, "bytes", "one row with everything that its event gave it: a block of it alone is a record";
    RECORD_ALONE_BYTES = 64 << 10, "bytes", "a record from which on it is read into memory of its own: who keeps it keeps nothing else, and need not copy it";
    RECORD_HEADERS_BYTES_MAX = 100 << 10, "bytes", "key and headers of a record: with the largest value still below 1 MiB";
    PARTITIONS_MAX = 1_024, "partitions", "positions and states are kept for each";
    SEGMENT_BYTES = 64 << 20, "bytes", "retention deletes whole segments; recovery scans the last one";
    SEGMENTS_INDEXED_MAX = 32, "segments", "indexes of older segments kept in memory for each chain; readers far apart each need one";
    GROUP_COMMIT_BYTES_MAX = 8 << 20, "bytes", "written between two syncs: a waiting publisher waits for no more than this";
    LOG_NEWEST_BYTES_MAX = 4 << 20, "bytes", "of the newest records of each chain of the embedded log, kept for those who follow it";
    APPEND_QUEUE_BYTES_MAX = 64 << 20, "bytes", "accepted by the log and not yet written; past it a publisher is told that the log is full";
    COMMIT_BYTES_MAX = 256 << 20, "bytes", "epochs committed by one call: they are written as one group";
    LOG_RETRY_MILLISECONDS_MAX = 5_000, "milliseconds", "after a failed write: longest pause before the log is tried again";
    LOG_PROBE_BYTES_MAX = 8 << 20, "bytes", "that must fit on the disk before a log takes writes again after a failed one; as many as had failed, if fewer";
    HORIZONS_PERCENT = 60, "percent", "of the log's budget: beyond it what is kept for replay and receipts alone goes, the oldest first";
    EDGES_PERCENT = 25, "percent", "of the log's budget that the output between two edges may take, over all partitions";
    SNAPSHOTS_PERCENT = 10, "percent", "of the log's budget that the output since the last snapshots may take, over all partitions";
    COMMITS_PERCENT = 10, "percent", "of the log's budget for commit records whose output was deleted; the oldest go first";
    LOG_BUDGET_BYTES = 8 << 30, "bytes", "disk of the embedded log unless set; 503 at 85 %, epochs wait at 95 %";
    INTAKE_STOPS_PERCENT = 85, "percent", "of the log's budget: ingest answers 503 beyond it";
    SEALING_STOPS_PERCENT = 95, "percent", "of the log's budget: no epoch with events is committed beyond it; the rest is for cursors, markers and control";
    TICKS_STOP_PERCENT = 97, "percent", "of the log's budget: no epoch at all is committed beyond it; empty ones let time pass, by which sinks close their cuts and make room";
    EPOCH_EMPTY_BYTES_MAX = 4 << 10, "bytes", "of a commit that is taken for an empty epoch: those have some hundred, and tenants that are behind and quarantines add to them";

    // Kafka
    KAFKA_MESSAGE_BYTES_MAX = 1 << 20, "bytes", "the largest record with its headers and key as Kafka frames it; below Kafka's own default";
    KAFKA_PUBLISH_RECORDS_MAX = 100_000, "records", "handed to the producer and not yet delivered; past it a publisher is told that the log is full";
    KAFKA_DELIVERY_MILLISECONDS = 10_000, "milliseconds", "a record that no broker took by then has failed: the sender may try again";
    KAFKA_TRANSACTION_MILLISECONDS = 60_000, "milliseconds", "what a dead process left open blocks readers for so long, unless a successor takes over; longer than a broker takes to start, which would roll it back too early";
    KAFKA_SESSION_MILLISECONDS = 10_000, "milliseconds", "silence after which the group gives a process's partitions away";
    KAFKA_START_SECONDS_MAX = 30, "seconds", "brokers may take so long to answer, create and elect before a start is given up";
    KAFKA_REQUEST_SECONDS_MAX = 10, "seconds", "one question to a broker, and one read of what is known to be there";
    KAFKA_COMMIT_SECONDS_MAX = 60, "seconds", "a commit whose outcome is unknown is settled for so long: a broker's restart fits twice";
    KAFKA_COMMIT_TRIES_MAX = 5, "tries", "of one commit after aborted transactions; then the partition is taken over anew";
    KAFKA_READERS_MAX = 64, "clients", "readers of one process, each at a place of its own with three threads";
    KAFKA_READ_AHEAD_BYTES = 2 << 20, "bytes", "fetched by one reader before it is asked";
    KAFKA_REVOKE_MILLISECONDS_MAX = 5_000, "milliseconds", "open epochs may be finished for so long before a partition moves";
    KAFKA_MEMBERSHIP_EVENTS_MAX = 64, "events", "changes of the assignment that the process has not yet taken note of";

    // processing
    EPOCH_EVENTS_MAX = 5_000, "events", "an epoch: latency and memory of one atomic step; an event under way takes about 8 kB with its document, row and columns";
    EPOCH_BYTES_MAX = 4 << 20, "bytes", "input bytes of one epoch";
    EPOCH_OUTPUT_BYTES_MAX = 64 << 20, "bytes", "output of one epoch; past it the epoch is abandoned and cut smaller";
    EPOCH_STEPS_MAX = 200_000_000, "steps", "estimated script steps of one epoch: some seconds of one core";
    EPOCH_SCRIPT_MILLISECONDS = 400, "milliseconds", "time of an epoch's scripts: past it a tenant gets no more than an equal share, and what is left of its events waits";
    SEGMENT_EVENTS = 8, "events", "of a tenant that run before its time is looked at: at the watchdog's limit, twice, they take 1.6 s";
    BEHIND_TENANTS_MAX = 16, "tenants", "of one partition whose events wait while those of others go on; past it all wait, since each is read at a place of its own";
    BEHIND_RECORDS_MAX = 100_000, "records", "between the oldest event that waits and the newest that was taken: raw keeps all in between";
    COSTS_MAX = 4_096, "tenants", "of one partition whose events' cost is known; past it they are learned again";
    EPOCHS_UNDER_WAY_MAX = 8, "epochs", "sealed by one partition and not yet committed: timely has no back-pressure of its own; a slow log takes them in one commit";
    SEALED_BYTES_MAX = 8 << 20, "bytes", "output of those of one partition; past it nothing more is sealed, so it and one epoch are the memory of a slow log";
    TIMESTAMP_YEAR_MIN = 1900, "year", "of any timestamp that an event carries: DateTime64 of ClickHouse begins with it, others (Python: 1) before";
    TIMESTAMP_YEAR_MAX = 2299, "year", "of any timestamp that an event carries: DateTime64 of ClickHouse ends with it, others (Python: 9999) later";
    READ_BYTES_MAX = 1 << 20, "bytes", "read from the log at once by one reader";
    BUNDLE_EVENTS_MAX = 1_024, "events", "events of one tenant and template that pass a stage together";
    DUPLICATE_KEYS_MAX = 2_000_000, "keys", "duplicate state of one partition, 16 bytes each and an epoch";
    DUPLICATE_HORIZON_SECONDS = 86_400, "seconds", "recorded time within which a repeated event id is a duplicate";
    SNAPSHOT_EVERY_EPOCHS = 512, "epochs", "recovery folds at most this many epochs of outcomes and some";
    CATALOG_DEFINITIONS_MAX = 1_000_000, "definitions", "the catalog lives in memory";
    SCRIPT_STATES_SHARED = 16, "states", "script states of one worker that many tenants share, each with environments of its own";
    SCRIPT_FORM_DOCUMENTS_MIN = 96, "documents", "of one form before a function that makes them is compiled: estimated to cost what it saves with these, not measured";
    SCRIPT_STATES_MAX = 64, "states", "script states of one worker that are one tenant's: of those that ran out of memory or may use less than others; the least recently used goes";
    SCRIPT_SHARED_BYTES_MAX = 4 << 20, "bytes", "what a shared script state may hold between bundles: past it the state starts over, and the tenant gets one of its own";
    SCRIPT_STATE_LOADS_MAX = 512, "versions", "template versions that a script state loads in its life: native code that has gone leaves its pages behind";

    // scripts
    SCRIPT_STEPS = 10_000, "steps", "default for one event over its stages";
    SCRIPT_STEPS_HARD = 1_000_000, "steps", "no quota goes beyond it";
    SCRIPT_MEMORY_BYTES = 16 << 20, "bytes", "default ceiling of one script state";
    SCRIPT_MEMORY_BYTES_HARD = 64 << 20, "bytes", "no quota goes beyond it";
    SCRIPT_SOURCE_BYTES = 64 << 10, "bytes", "source of one stage";
    SCRIPT_STRING_BYTES_MAX = 1 << 20, "bytes", "any string or buffer that one library call makes: its time must stay far below the watchdog's";
    SCRIPT_PATTERN_BYTES_MAX = 1 << 10, "bytes", "text of a regular expression that a script names: compiling it must stay far below the watchdog's time";
    SCRIPT_PATTERN_PROGRAM_BYTES_MAX = 64 << 10, "bytes", "program of such an expression: a search costs text times program at worst";
    SCRIPT_PATTERN_TEXT_BYTES_MAX = 64 << 10, "bytes", "text that the smallest programs search at once; larger ones less, in proportion";
    SCRIPT_PATTERNS_KEPT = 32, "patterns", "compiled ones of one script state, a few hundred kB at worst each with their caches; the least recently used goes";
    SCRIPT_NAMES_KEPT = 1_024, "names", "members' names of documents that a template version keeps as Luau's own strings; others are made anew";
    SCRIPT_NAME_BYTES_KEPT = 64, "bytes", "the longest of them";
    SCRIPT_TEMPLATES_MAX = 256, "versions", "template versions that one script state holds; past it the state starts over";
    SCRIPT_COMPILED_MAX = 4_096, "versions", "compiled template versions of one worker, bytecode and patterns; past it they are compiled again";
    SCRIPT_CPU_MILLISECONDS_MAX = 100, "milliseconds", "CPU time of one event's stages: a fault of the host, not a quota";
    RESULT_BYTES_MAX = 64 << 10, "bytes", "what one event's stages may return";
    RESULT_BYTES_MAX_HARD = 1 << 20, "bytes", "no quota goes beyond it";
    RESULT_FIELDS_MAX = 256, "fields", "of one row";
    RESULT_DEPTH_MAX = 16, "levels", "of a returned value";
    RESULT_ROWS_MAX = 1_000, "rows", "of one event";
    SCRIPT_LOG_BYTES_MAX = 2 << 10, "bytes", "what one event's scripts may log";
    SCRIPT_LOG_TENANT_BYTES_MAX = 64 << 10, "bytes", "what one tenant's scripts may log in one epoch: a log is for people, and must not outgrow the rows";
    QUARANTINE_FAULTS = 3, "events", "in a row that ended in a fault of the host: then the template version is quarantined for the tenant";
    CRASHES_MAX = 3, "deaths", "of the process in a row while one event's scripts ran alone: then the event is rejected";
    QUARANTINES_TOLD_MAX = 256, "quarantines", "of this process on their way to control; a partition tells them again at its next commit";
    REJECTION_DETAIL_BYTES_MAX = 512, "bytes", "a rejection's explanation";

    // definitions
    FIELDS_MAX = 500, "fields", "of one table";
    FIELD_NAME_BYTES_MAX = 63, "bytes", "what every sink's column names allow";
    TREE_DEPTH_MAX = 16, "levels", "of the organization tree";

    // sinks
    CUT_ROWS = 5_000, "rows", "a cut of this many rows may close once it is a minute old";
    CUT_ROWS_MAX = 500_000, "rows", "a cut closes at once";
    CUT_BYTES_MAX = 32 << 20, "bytes", "block bytes of one cut";
    OPEN_CUT_BYTES_MAX = 64 << 20, "bytes", "block bytes over all open cuts of a partition: the sink's memory";
    CUT_SECONDS_MIN = 60, "seconds", "recorded time before a cut of enough rows closes";
    CUT_EDGE_SECONDS = 900, "seconds", "all cuts close where recorded time passes a multiple of this";
    CUT_EDGE_BYTES = 256 << 20, "bytes", "output of a partition between two edges, which the log keeps whatever sinks have";
    DELIVERY_SLOW_SECONDS = 10, "seconds", "that a sink may take to answer before it is said of it";
    DELIVERY_RETRY_SECONDS_MAX = 30, "seconds", "longest pause between two attempts at a delivery";
    DELIVERY_FAILURES_MAX = 5, "attempts", "that fail in a row, over all partitions and tables of a sink; then one at a time finds out whether it is back";
    DELTA_TABLES_OPEN_MAX = 1_024, "tables", "snapshots of Delta tables kept in memory";
    DELTA_COMMIT_TRIES_MAX = 8, "tries", "conflicts of one commit within one delivery; then the driver waits before it tries again";
    DELTA_FILES_READ_MAX = 16, "files", "of a table's log that are read at once: each holds a decoder, and a thread or a connection; all of a hundred commits took 350 MB for a moment";
    DELTA_CHECKPOINT_COMMITS = 100, "commits", "a reader replays at most this many of a table";
    DELIVERIES_UNDER_WAY_MAX = 4, "deliveries", "of one sink in one process, each with the encoded file of a cut in memory";
    SINK_READERS_MAX = 16, "reads", "of one sink that wait for the log at once; each takes a thread";
    SINK_TARGETS_MAX = 65_536, "targets", "that one partition remembers having asked the sink about; past it they are asked again";
    CLICKHOUSE_DEDUPLICATION_WINDOW = 10_000, "inserts", "of a table that ClickHouse knows again by their token";
    CLICKHOUSE_BLOCK_ROWS_MAX = 16 << 20, "rows", "of one insert that stay one block, so that it is stored whole or not at all; far above any cut";
    CLICKHOUSE_BLOCK_BYTES_MAX = 1 << 30, "bytes", "of one insert that stay one block, as the server counts them; far above any cut";
    CLICKHOUSE_CUT_BYTES_MAX = 256 << 20, "bytes", "block bytes of one cut that go into one insert";
    CLICKHOUSE_CONNECT_SECONDS_MAX = 10, "seconds", "until a connection to ClickHouse stands";
    CLICKHOUSE_REQUEST_SECONDS = 120, "seconds", "one statement or insert may take before it counts as failed and is tried again";
    CLICKHOUSE_ANSWER_BYTES_MAX = 64 << 20, "bytes", "of one answer of ClickHouse that is read into memory";
    PARKED_BYTES_MAX = 1 << 30, "bytes", "blocks of parked tables kept apart; past it they are dropped as a recorded gap";
    VERIFY_FILE_BYTES_MAX = 1 << 30, "bytes", "of one table file that `verify` fetches from an object store into memory; those of one cut are far smaller";
    OBJECT_CONNECT_SECONDS_MAX = 5, "seconds", "until a connection to an object store stands";
    OBJECT_REQUEST_SECONDS = 60, "seconds", "one request to an object store may take before it counts as failed";
    OBJECT_RETRIES_MAX = 3, "repeats", "of one request within seconds, for a connection that was just closed or a server that asks for a moment; whatever lasts is the driver's";
    OBJECT_RETRY_SECONDS_MAX = 10, "seconds", "after which a request is not repeated";
    OBJECT_CHECK_SECONDS_MAX = 15, "seconds", "that a start waits for an object store to show that its conditional writes hold; then the sink tries on";
    VERIFY_KEYS_MAX = 4 << 20, "keys", "of overlapping files, compared in memory for duplicates";

    // administration
    RELEASE_EVENTS_MAX = 100_000, "events", "rejections that are looked at by one release or list: what is left comes with the next one";
    RELEASE_HEADER_BYTES_MAX = 32 << 10, "bytes", "of the list of rejections in one released record, which goes with meta and places into its headers";
    RELEASE_RECORDS_AT_ONCE = 64, "records", "of a release handed to the log together: what dies between two groups is released again as duplicates";
    CONTROL_SOCKET_BYTES_MAX = 64 << 20, "bytes", "definitions sent over the control socket";
    METRIC_TENANTS_MAX = 1_000, "tenants", "tenant labels of metrics; the rest is counted as other";
}
