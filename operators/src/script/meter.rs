//! What an event's scripts have spent, and of what. Everything here is sticky: once something is spent, every further
//! safepoint raises, so `pcall` cannot swallow it, and the host asks again when the call has ended.

use crate::script::error::describe;
use crate::script::tide::Random;
use crate::script::watch::Watch;
use mlua::{Error, Lua};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use tidegate_schemas::limits::SCRIPT_LOG_BYTES_MAX;
use tidegate_schemas::verdict::{Code, StageName};

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    Steps,
    Memory,
    Time,
}

impl Spent {
    pub(crate) fn code(self) -> Code {
        match self {
            Self::Steps => Code::StepsExhausted,
            Self::Memory => Code::MemoryExhausted,
            Self::Time => Code::TimedOut,
        }
    }

    /// The script's line in which it was, by what was raised there. Memory has none: what allocates last is not what takes most.
    #[cold]
    pub(crate) fn line(self, stage: StageName, raised: Option<&Error>) -> Option<i32> {
        raised.filter(|_| self != Self::Memory).and_then(|error| describe(stage, error).line)
    }
}

/// Script stages in the order in which they run.
pub(crate) const STAGES: [StageName; 3] = [StageName::Decode, StageName::Validate, StageName::Transform];
/// No script runs.
const IDLE: u8 = 0;

/// One for each host: a thread runs one event at a time.
#[derive(Debug)]
pub(crate) struct Meter {
    watch: Arc<Watch>,
    serial: Cell<u64>,
    /// Interrupts since the event began, and what library functions charged; other stages of the event included.
    steps: Cell<u64>,
    /// What the event may spend over its stages.
    limit: Cell<u64>,
    /// `steps` when the stage was entered.
    base: Cell<u64>,
    /// 0 while idle, else 1 and up as in [`STAGES`].
    stage: Cell<u8>,
    /// Of this run, by stage.
    by_stage: [Cell<u64>; 3],
    entered: Cell<u8>,
    spent: Cell<Option<Spent>>,
    memory: Cell<usize>,
    now: Cell<f64>,
    log_left: Cell<usize>,
    /// Whether it is told in which line steps or time ended.
    tells_lines: Cell<bool>,
    /// What scripts log, where somebody asked for it.
    notes: RefCell<Option<Vec<Note>>>,
    random: Random,
}

/// What a script logged with `tide.log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The script's stage.
    pub stage: StageName,
    /// Cut where the event's log was full.
    pub text: String,
    /// Bytes left out, here and in later lines of the event that found no room at all.
    pub cut: u64,
}

/// What an event may spend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    pub(crate) steps: u64,
    pub(crate) memory: usize,
    /// Milliseconds since 1970, for `tide.now()`.
    pub(crate) now: f64,
    /// What `tide.random()` begins with.
    pub(crate) seed: u64,
}

impl Meter {
    pub(crate) fn new(watch: Arc<Watch>) -> Self {
        Self {
            watch,
            serial: Cell::new(0),
            steps: Cell::new(0),
            limit: Cell::new(u64::MAX),
            base: Cell::new(0),
            stage: Cell::new(IDLE),
            by_stage: Default::default(),
            entered: Cell::new(0),
            spent: Cell::new(None),
            memory: Cell::new(0),
            now: Cell::new(0.0),
            log_left: Cell::new(0),
            tells_lines: Cell::new(false),
            notes: RefCell::new(None),
            random: Random::default(),
        }
    }

    /// Nothing has run for the event at hand.
    pub(crate) fn reset(&self) {
        self.spent.set(None);
        self.entered.set(0);
    }

    /// An event begins that has spent `before` in earlier stages.
    pub(crate) fn begin(&self, allowance: Allowance, before: u64) {
        self.serial.set(self.serial.get() + 1);
        self.steps.set(before);
        self.base.set(before);
        self.limit.set(allowance.steps);
        self.memory.set(allowance.memory);
        self.now.set(allowance.now);
        self.random.start(allowance.seed);
        self.stage.set(IDLE);
        self.entered.set(0);
        self.by_stage.iter().for_each(|s| s.set(0));
        self.spent.set(None);
        self.log_left.set(SCRIPT_LOG_BYTES_MAX);
        self.watch.begin(self.serial.get());
    }

    /// The event ends: what ran out is told.
    pub(crate) fn end(&self, lua: &Lua) -> Option<Spent> {
        self.watch.end();
        self.leave(lua);
        self.spent.get()
    }

    /// A stage's function is about to be called, which is a step; `index` is that of [`STAGES`]. False where nothing is left
    /// to spend: then it must not be called.
    pub(crate) fn enter(&self, lua: &Lua, index: usize) -> bool {
        // Always-on the limit would make every table operation of the host a protected call. It only fails in Lua states
        // that somebody else owns. Zero bytes would be taken for no limit.
        let _ = lua.set_memory_limit(self.memory.get().max(1));
        self.base.set(self.steps.get());
        self.stage.set(index as u8 + 1);
        self.entered.set(self.entered.get() | (2 << index));
        self.spent.get().is_none() && self.step()
    }

    /// The stage's function has returned, or none is entered any more: limits are lifted.
    pub(crate) fn leave(&self, lua: &Lua) {
        if self.stage.get() == IDLE {
            return;
        }
        let _ = lua.set_memory_limit(0);
        if let Some(sum) = usize::from(self.stage.get()).checked_sub(1).and_then(|i| self.by_stage.get(i)) {
            sum.set(sum.get() + self.steps.get() - self.base.get());
        }
        self.stage.set(IDLE);
    }

    /// One safepoint: the interrupt of every state. False where the script has to end.
    #[inline]
    pub(crate) fn step(&self) -> bool {
        let steps = self.steps.get() + 1;
        self.steps.set(steps);
        (steps <= self.limit.get() && !self.watch.is_killed(self.serial.get())) || self.goes_on()
    }

    /// A library function is about to work on long data.
    pub(crate) fn charge(&self, steps: f64) -> mlua::Result<()> {
        // NaN and negative numbers are the library function's own business; `as` saturates.
        self.steps.set(self.steps.get().saturating_add(steps as u64).min(u64::MAX / 2));
        // A native that charges as it goes has no other safepoint.
        let is_left = self.steps.get() <= self.limit.get() && !self.watch.is_killed(self.serial.get());
        if is_left || self.goes_on() { Ok(()) } else { Err(Error::runtime("out of steps or time")) }
    }

    /// An allocation failed.
    pub(crate) fn out_of_memory(&self) -> Error {
        // What ran out first is what is told: raising that may have failed for want of memory.
        if self.spent.get().is_none() {
            self.spent.set(Some(Spent::Memory));
            self.limit.set(0);
        }
        Error::runtime("out of memory")
    }

    /// Something ran out: notes what. True where no script is to be ended for it.
    #[cold]
    fn goes_on(&self) -> bool {
        if self.stage.get() == IDLE {
            // The next script's first step finds it.
            return true;
        }
        if self.spent.get().is_none() {
            self.spent.set(Some(if self.watch.is_killed(self.serial.get()) { Spent::Time } else { Spent::Steps }));
        }
        let most = self.limit.get().max(self.base.get());
        match self.spent.get() {
            // What was spent is what was allowed: the count does not depend on how long a script goes on catching.
            Some(Spent::Steps) => self.steps.set(most),
            // A charge may have been under way; nobody pays for more than is allowed.
            Some(Spent::Time) => self.steps.set(self.steps.get().min(most)),
            _ => {}
        }
        false
    }

    /// The stage whose script runs, or ran when it raised.
    pub(crate) fn stage(&self) -> Option<StageName> {
        usize::from(self.stage.get()).checked_sub(1).and_then(|i| STAGES.get(i)).copied()
    }
    /// Steps of the event so far, all stages.
    pub(crate) fn steps(&self) -> u64 {
        self.steps.get()
    }
    /// Steps of stage `index` in this run; `None` where it was not reached.
    pub(crate) fn steps_of(&self, index: usize) -> Option<u64> {
        (self.entered.get() & (2 << index) != 0).then(|| self.by_stage[index].get())
    }
    /// The recorded time in milliseconds.
    pub(crate) fn now(&self) -> f64 {
        self.now.get()
    }
    /// The event's random numbers.
    pub(crate) fn random(&self) -> &Random {
        &self.random
    }
    /// The number of the run at hand: no two have the same.
    pub(crate) fn serial(&self) -> u64 {
        self.serial.get()
    }
    /// Keeps notes from now on.
    pub(crate) fn keep_notes(&self) {
        self.notes.borrow_mut().get_or_insert_default();
    }
    /// Tells lines from now on.
    pub(crate) fn tell_lines(&self) {
        self.tells_lines.set(true);
    }
    /// Whether it is told in which line steps or time ended.
    pub(crate) fn tells_lines(&self) -> bool {
        self.tells_lines.get()
    }
    /// The notes since they were last taken.
    pub(crate) fn take_notes(&self) -> Vec<Note> {
        self.notes.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default()
    }
    /// Keeps a note of which `cut` bytes were left out, where notes are kept.
    pub(crate) fn note(&self, text: &str, cut: usize) {
        if let (Some(notes), Some(stage)) = (self.notes.borrow_mut().as_mut(), self.stage()) {
            match notes.last_mut() {
                Some(last) if text.is_empty() && cut > 0 => last.cut += cut as u64,
                _ => notes.push(Note { stage, text: text.to_owned(), cut: cut as u64 }),
            }
        }
    }
    /// Takes up to `bytes` of what may still be logged.
    pub(crate) fn take_log(&self, bytes: usize) -> usize {
        let taken = bytes.min(self.log_left.get());
        self.log_left.set(self.log_left.get() - taken);
        taken
    }
}
