//! Events under way: what the stages pass on to one another.

use crate::script::Note;
use std::ops::Range;
use std::sync::Arc;
use tidegate_schemas::block::ScriptRun;
use tidegate_schemas::catalog::{PinnedAsset, PinnedSource, PinnedTemplate};
use tidegate_schemas::document::Document;
use tidegate_schemas::envelope::Envelope;
use tidegate_schemas::row::{Origin, Row};
use tidegate_schemas::rows::Rows;
use tidegate_schemas::table::Table;
use tidegate_schemas::time::Micros;
use tidegate_schemas::verdict::{Rejection, StageName};

use bytes::Bytes;

/// One event on its way through an epoch.
#[derive(Debug)]
pub struct Event {
    /// Place, index, id, asset and received-at.
    pub origin: Origin,
    /// Under which it is known as seen.
    pub key: [u8; 16],
    /// The request that it came in.
    pub envelope: Arc<Envelope>,
    /// As sent.
    pub bytes: Bytes,
    /// The event as a document, for the stages; null for raw bytes.
    pub document: Document,
    /// What `decode` returned as `data`, where a native stage after it needs it.
    pub decoded: Option<Box<Document>>,
    /// Where the source points for the device's own time.
    pub occurred_at: Option<Micros>,
    /// Where the source points for the event's type.
    pub event_type: Option<Arc<str>>,
    /// The asset as published, where it is.
    pub asset: Option<Arc<PinnedAsset>>,
    /// Script steps that it has spent so far.
    pub steps: u64,
    /// What its scripts logged, where the host keeps it.
    pub notes: Vec<Note>,
    /// How far it is.
    pub progress: Progress,
}

/// How far an event is.
#[derive(Debug)]
pub enum Progress {
    /// The next stage that has to look at it: stages before it are done, those after it are not.
    At(StageName),
    /// It has its rows: these of its bundle.
    Transformed(Range<u32>),
    /// A script left it out on purpose.
    Filtered,
    /// It was seen in an earlier epoch.
    Duplicate,
    /// It was refused. Few are, and an event is moved often.
    Rejected(Box<Rejection>),
}

/// Events of one source and one template version that pass the stages together, in raw order.
#[derive(Debug)]
pub struct Bundle {
    /// Where they came in; its tenant is theirs. None where the source is gone: then all events are refused.
    pub source: Option<Arc<PinnedSource>>,
    /// What decides about them. None where none was found: then all events are refused or duplicates.
    pub plan: Option<Plan>,
    /// The events.
    pub events: Vec<Event>,
    /// What the events became, in the columns of the plan's table.
    pub rows: Rows,
    /// What the scripts did so far, by stage.
    pub runs: Vec<ScriptRun>,
}

impl Bundle {
    /// Events that have no rows yet. Where there is room for more events, there is for their rows.
    pub fn new(source: Option<Arc<PinnedSource>>, plan: Option<Plan>, events: Vec<Event>) -> Self {
        let rows = plan.as_ref().map_or_else(Rows::default, |plan| Rows::new(&plan.table, events.capacity()));
        Self { source, plan, events, rows, runs: Vec::new() }
    }

    /// The rows of one of its events by themselves; none where it has none.
    pub fn rows_of(&self, event: &Event) -> Option<Vec<Row>> {
        match &event.progress {
            Progress::Transformed(rows) => Some(self.rows.range(rows.clone())),
            _ => None,
        }
    }
}

/// A template version with its table.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The template version.
    pub template: Arc<PinnedTemplate>,
    /// The table that it fills, as of the epoch's revision.
    pub table: Arc<Table>,
}

/// What a stage may know of the epoch: its time is the only clock there is.
#[derive(Debug, Clone, Copy)]
pub struct EpochContext {
    /// The epoch's recorded time.
    pub recorded_at: Micros,
}

impl Event {
    /// Whether `stage` has to look at it.
    pub fn is_at(&self, stage: StageName) -> bool {
        matches!(self.progress, Progress::At(s) if s == stage)
    }

    /// Whether it came to an end in one of the stages after `open`.
    pub fn has_run(&self) -> bool {
        match &self.progress {
            Progress::Transformed(_) | Progress::Filtered => true,
            Progress::Rejected(rejection) => !matches!(rejection.stage, StageName::Ingest | StageName::Open),
            Progress::At(_) | Progress::Duplicate => false,
        }
    }

    /// Goes on, or ends its way: then nobody asks for its document, and an epoch has thousands of them.
    pub fn go(&mut self, progress: Progress) {
        if !matches!(progress, Progress::At(_)) {
            self.document = Document::null();
        }
        self.progress = progress;
    }

    /// Ends its way with a rejection.
    pub fn reject(&mut self, rejection: Rejection) {
        self.go(Progress::Rejected(Box::new(rejection)));
    }
}
