//! The sandbox: tenants' scripts in Luau.
//!
//! It has no I/O, no clock, no randomness, and gives a script nothing of another tenant: an environment for each tenant and
//! template version, in a Lua state that a few tenants share until one of them takes more than its share of the memory and
//! gets a state of its own. Steps, memory, time, results, strings and logs are bounded; what runs out cannot be caught. Steps
//! are counted at Luau's interrupts and by what library functions charge; with native code on and off they may differ by one
//! at each loop left by `break`, so a log is to be replayed with the setting it was written with.
//!
//! ```text
//! Bundle ─▶ run: for each event  ─ enter ─▶ raw: decode ─▶ validate ─▶ transform ─ leave ─▶ rows, rejection
//!              │ Host: states, shared and by tenant; bytecode and patterns by tenant and version
//!              └ Meter: steps, memory, kill; Watch: what the watchdog sees
//! ```

mod compile;
mod driver;
mod enter;
mod error;
pub(crate) mod leave;
mod makers;
mod meter;
mod metrics;
#[cfg(feature = "oracle")]
mod oracle;
mod raw;
mod run;
mod state;
mod tide;
mod watch;

pub use compile::check;
pub use error::ScriptError;
pub use meter::Note;
pub(crate) use run::fused;
pub use watch::Watch;

use compile::Compiled;
use hashbrown::HashMap;
use meter::Meter;
use state::State;
use std::rc::Rc;
use std::sync::Arc;
use tidegate_schemas::catalog::PinnedTemplate;
use tidegate_schemas::commit::Fault;
use tidegate_schemas::ids::TenantId;
use tidegate_schemas::limits::{SCRIPT_COMPILED_MAX, SCRIPT_FORM_DOCUMENTS_MIN, SCRIPT_MEMORY_BYTES, SCRIPT_STATES_SHARED};

/// How a host works.
#[derive(Debug, Clone, Copy)]
pub struct HostOptions {
    /// Script states that it keeps of one tenant each, beside the shared ones; the least recently used goes.
    pub states_max: usize,
    /// Whether scripts become native code.
    pub native: bool,
}

/// The scripts of one worker thread.
pub struct Host {
    options: HostOptions,
    meter: Rc<Meter>,
    /// States that several tenants share, made when the first of them comes.
    shared: [Option<State>; SCRIPT_STATES_SHARED],
    /// States of one tenant each.
    own: HashMap<TenantId, State>,
    compiled: HashMap<TenantId, HashMap<String, Rc<Result<Compiled, ScriptError>>>>,
    compiled_count: usize,
    uses: u64,
    faults: Vec<Fault>,
    forms_after: usize,
    #[cfg(feature = "oracle")]
    by_oracle: bool,
}

impl Host {
    /// A host without any state. `watch` is what its watchdog looks at.
    pub fn new(options: HostOptions, watch: Arc<Watch>) -> Self {
        let meter = Rc::new(Meter::new(watch));
        Self {
            options,
            meter,
            shared: std::array::from_fn(|_| None),
            own: HashMap::new(),
            compiled: HashMap::new(),
            compiled_count: 0,
            uses: 0,
            faults: Vec::new(),
            forms_after: SCRIPT_FORM_DOCUMENTS_MIN,
            #[cfg(feature = "oracle")]
            by_oracle: false,
        }
    }

    /// A host that drives scripts by mlua's safe API, value by value: what tests hold the other one against.
    #[cfg(feature = "oracle")]
    pub fn oracle(options: HostOptions, watch: Arc<Watch>) -> Self {
        Self { by_oracle: true, ..Self::new(options, watch) }
    }

    /// A host that compiles functions for forms of documents as soon as it has met so many of one.
    #[cfg(feature = "oracle")]
    pub fn with_forms_after(self, documents: usize) -> Self {
        Self { forms_after: documents, ..self }
    }

    /// Events that timed out or ran out of memory since the last call: a replay honours them.
    pub fn take_faults(&mut self) -> Vec<Fault> {
        std::mem::take(&mut self.faults)
    }

    /// Keeps what scripts log with their events.
    pub fn keep_notes(&mut self) {
        self.meter.keep_notes();
    }

    /// Has rejections for want of steps or time name the line in which they ended. For authors' tools: native code may be a step
    /// ahead, and time ends anywhere, so that a line would not be the same in a replay.
    pub fn tell_lines(&mut self) {
        self.meter.tell_lines();
    }

    /// Bytes that the state of a tenant's scripts takes now, its libraries included; none where there is no state.
    pub fn used_memory(&self, tenant: &TenantId) -> Option<usize> {
        self.own.get(tenant).or(self.shared[share_of(tenant)].as_ref()).map(|state| state.lua.used_memory())
    }

    /// Takes the state of a tenant's scripts out for a bundle. Whose memory ends below the default one has a state of its own:
    /// what others keep would be most of it.
    fn take_state(&mut self, tenant: &TenantId, memory: usize) -> State {
        if let Some(state) = self.own.remove(tenant) {
            return state;
        }
        if memory < SCRIPT_MEMORY_BYTES {
            return self.new_state(false);
        }
        self.shared[share_of(tenant)].take().unwrap_or_else(|| self.new_state(true))
    }

    fn new_state(&self, is_shared: bool) -> State {
        metrics::state_made();
        match State::new(self.options.native, self.forms_after, is_shared, &self.meter) {
            Ok(state) => state,
            // The prelude is part of the program.
            Err(error) => panic!("a script state cannot be made: {error}"),
        }
    }

    /// Keeps a state for the next bundle. One that has grown too full goes, and the tenant under which it did starts over by
    /// itself.
    fn put_state(&mut self, tenant: &TenantId, state: State) {
        match (state.is_full(), state.is_shared) {
            (false, true) => self.shared[share_of(tenant)] = Some(state),
            (false, false) => self.keep(tenant, state),
            (true, _) => self.keep(tenant, self.new_state(false)),
        }
    }

    /// Gives a shared state back that one tenant leaves.
    fn leave_shared(&mut self, tenant: &TenantId, state: State) {
        if !state.is_full() {
            self.shared[share_of(tenant)] = Some(state);
        }
    }

    fn keep(&mut self, tenant: &TenantId, mut state: State) {
        self.uses += 1;
        state.used = self.uses;
        if self.own.len() >= self.options.states_max
            && let Some(oldest) = self.own.iter().min_by_key(|(_, s)| s.used).map(|(tenant, _)| tenant.clone())
        {
            self.own.remove(&oldest);
        }
        self.own.insert(tenant.clone(), state);
    }

    /// A template version, compiled for a tenant.
    pub(crate) fn compiled(&mut self, tenant: &TenantId, template: &PinnedTemplate) -> Rc<Result<Compiled, ScriptError>> {
        if let Some(found) = self.compiled.get(tenant).and_then(|of| of.get(&template.version)) {
            return Rc::clone(found);
        }
        if self.compiled_count >= SCRIPT_COMPILED_MAX {
            self.compiled.clear();
            self.compiled_count = 0;
        }
        let made = Rc::new(compile::compile(&template.template));
        self.compiled.entry(tenant.clone()).or_default().insert(template.version.clone(), Rc::clone(&made));
        self.compiled_count += 1;
        made
    }
}

/// Which of the shared states a tenant's scripts run in (FNV-1a: any function that spreads names does).
fn share_of(tenant: &TenantId) -> usize {
    let hash =
        tenant.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (hash % SCRIPT_STATES_SHARED as u64) as usize
}
