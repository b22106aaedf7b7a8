//! Lua states, and in each an environment for every tenant and template version.
//!
//! A state's libraries are those of the prelude, closed by Luau's sandbox. An environment is an empty table over them: what
//! the top level of a script defines stays in it, and it is read-only from then on, so no global outlives an event. A
//! script's own upvalues do: what an event writes into them the next one of the same tenant and template version may read.
//! They end with the state, and never reach another template or tenant.

use crate::event::Event;
use crate::script::compile::{CALLED, Compiled};
use crate::script::error::{ScriptError, describe};
use crate::script::makers::Makers;
use crate::script::meter::{Allowance, Meter, STAGES, Spent};
use crate::script::raw::{Crossing, Pins, counted};
use crate::script::tide::{self, is_memory};
use crate::stages::transform::fields::Fields;
use hashbrown::{Equivalent, HashMap};
use mlua::{ChunkMode, Compiler, Function, Lua, LuaOptions, StdLib, Table, Value};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use tidegate_schemas::catalog::{PinnedAsset, PinnedSource};
use tidegate_schemas::envelope::Envelope;
use tidegate_schemas::ids::TenantId;
use tidegate_schemas::limits::{SCRIPT_SHARED_BYTES_MAX, SCRIPT_STATE_LOADS_MAX, SCRIPT_TEMPLATES_MAX};
use tidegate_schemas::locate::header_key;
use tidegate_schemas::verdict::{Code, Rejection, StageName};

/// Tables of assets' attributes that are kept; past it they are made again.
const ATTRIBUTES_KEPT: usize = 1_024;
/// Values that a native may hold at once, and those that its event does.
const REFERENCES_SPARE: usize = 32;

/// When Luau collects: once the heap is half again as large as what lives in it, twice as fast as is allocated, in steps of 8 KiB.
/// By default it may double, in steps of 1 KiB: less work, but what a worker's states touch then does not fit into its cache.
const COLLECTOR: (i32, i32, i32) = (150, 200, 8);

/// A state, shared or a tenant's own.
pub(crate) struct State {
    native: bool,
    /// Documents of a form before a function that makes them is compiled.
    forms_after: usize,
    /// Whether it may hold environments of several tenants.
    pub(crate) is_shared: bool,
    pub(crate) lua: Lua,
    globals: Table,
    empty: Table,
    pub(crate) crossing: Crossing,
    environments: HashMap<(TenantId, String), Slot>,
    /// Environments that were ever loaded.
    loads: Cell<usize>,
    attributes: HashMap<usize, (Arc<PinnedAsset>, Table)>,
    meta: Option<(Arc<Envelope>, Table)>,
    /// When it was last used, in bundles of the host.
    pub(crate) used: u64,
}

/// A template version in a state.
pub(crate) enum Slot {
    Ready(Box<Environment>),
    /// Its top level fails, always in the same way: every event gets this.
    Broken(Rejection),
}

/// Loaded scripts.
pub(crate) struct Environment {
    #[cfg(feature = "oracle")]
    pub(crate) functions: [Option<Function>; 3],
    pub(crate) pins: Pins,
}

/// The key of an environment, for looking it up.
#[derive(Hash)]
struct Named<'a> {
    tenant: &'a TenantId,
    version: &'a str,
}

impl Equivalent<(TenantId, String)> for Named<'_> {
    fn equivalent(&self, (tenant, version): &(TenantId, String)) -> bool {
        self.tenant == tenant && self.version == version
    }
}

/// Why there is no environment.
pub(crate) enum LoadError {
    Broken(Rejection),
    /// And the line in which it was, where that is known.
    Spent(Spent, StageName, Option<i32>),
}

impl State {
    /// Makes a state and closes its sandbox.
    pub(crate) fn new(native: bool, forms_after: usize, is_shared: bool, meter: &Rc<Meter>) -> mlua::Result<Self> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::BIT | StdLib::BUFFER | StdLib::UTF8;
        let lua = Lua::new_with(libraries, LuaOptions::new())?;
        let (goal, speed, step) = COLLECTOR;
        lua.gc_inc(goal, speed, step);
        let globals = lua.globals();
        let natives = tide::natives(&lua, meter)?;
        let empty = lua.create_table()?;
        empty.set_readonly(true);
        let load = |bytecode| lua.load(bytecode).set_name("=tidegate").set_mode(ChunkMode::Binary);
        lua.enable_jit(native);
        let hot: Table = load(own(&HOT, HOT_SOURCE)?).call(&natives)?;
        // What else is native is said where it is loaded: for a cold tenant the translation costs more than it saves.
        lua.enable_jit(false);
        load(own(&PRELUDE, PRELUDE_SOURCE)?).call::<()>((&globals, natives, &hot))?;
        let crossing = Crossing::new(&lua, hot.get("input")?)?;
        lua.sandbox(true)?;
        let (environments, attributes) = (HashMap::new(), HashMap::new());
        let loads = Cell::new(0);
        let state =
            Self { native, forms_after, is_shared, lua, globals, empty, crossing, environments, loads, attributes, meta: None, used: 0 };
        state.spare_references();
        Ok(state)
    }

    /// mlua keeps the values that Rust holds on a stack in Luau's memory, and panics where it cannot grow. So there are free
    /// places before a script may have taken all the memory: wherever something is held for longer than an event.
    fn spare_references(&self) {
        // Each is a reference of its own; a clone would share one.
        drop([(); REFERENCES_SPARE].map(|()| self.lua.globals()));
    }

    /// Whether it starts over rather than take another bundle: shared ones hold little of each tenant.
    pub(crate) fn is_full(&self) -> bool {
        // Collecting costs as much as what is kept: not before as much again has been thrown away.
        let is_heavy = || {
            self.lua.used_memory() > 2 * SCRIPT_SHARED_BYTES_MAX
                && (self.lua.gc_collect().is_err() || self.lua.used_memory() > SCRIPT_SHARED_BYTES_MAX)
        };
        self.loads.get() >= SCRIPT_STATE_LOADS_MAX || (self.is_shared && is_heavy())
    }

    /// Takes a template version's environment out, loaded where it was not; it is given back with [`State::put`].
    pub(crate) fn take(
        &mut self,
        tenant: &TenantId,
        version: &str,
        compiled: &Compiled,
        fields: &Fields<'_>,
        meter: &Meter,
        allowance: Allowance,
    ) -> Result<Slot, Spent> {
        if let Some(slot) = self.environments.remove(&Named { tenant, version }) {
            return Ok(slot);
        }
        match self.load(compiled, fields.declared.iter().map(|d| d.field.name.as_str()), meter, allowance) {
            Ok(environment) => Ok(Slot::Ready(Box::new(environment))),
            Err(LoadError::Broken(rejection)) => Ok(Slot::Broken(rejection)),
            Err(LoadError::Spent(Spent::Steps, stage, line)) => {
                let rejection = Rejection::new(stage, Code::StepsExhausted, "the script's top level spent all steps");
                Ok(Slot::Broken(Rejection { line: line.filter(|_| meter.tells_lines()), ..rejection }))
            }
            Err(LoadError::Spent(spent, ..)) => Err(spent),
        }
    }

    /// Keeps an environment for the next bundle.
    pub(crate) fn put(&mut self, tenant: &TenantId, version: &str, slot: Slot) {
        if self.environments.len() >= SCRIPT_TEMPLATES_MAX {
            self.environments.clear();
        }
        self.environments.insert((tenant.clone(), version.to_owned()), slot);
    }

    /// Loads a template version's scripts, runs their top levels, and closes the environment.
    pub(crate) fn load<'a>(
        &self,
        compiled: &Compiled,
        fields: impl Iterator<Item = &'a str>,
        meter: &Meter,
        allowance: Allowance,
    ) -> Result<Environment, LoadError> {
        let broken = |stage: StageName, error: &mlua::Error| LoadError::Broken(describe(stage, error).into_rejection());
        self.loads.set(self.loads.get() + 1);
        let environment = self.environment().map_err(|e| broken(StageName::Decode, &e))?;
        for (index, bytecode) in compiled.scripts.iter().enumerate() {
            let (Some(bytecode), stage) = (bytecode, STAGES[index]) else { continue };
            let chunk = self
                .lua
                .load(bytecode.as_slice())
                .set_name(format!("={}", stage.as_str()))
                .set_mode(ChunkMode::Binary)
                .set_environment(environment.clone());
            self.lua.enable_jit(self.native);
            let top_level = chunk.into_function();
            self.lua.enable_jit(false);
            let top_level = top_level.map_err(|e| broken(stage, &e))?;
            meter.begin(allowance, 0);
            let result = counted(meter, || if meter.enter(&self.lua, index) { top_level.call::<()>(()) } else { Ok(()) });
            match (meter.end(&self.lua), result) {
                (Some(spent), result) => return Err(LoadError::Spent(spent, stage, spent.line(stage, result.err().as_ref()))),
                (None, Err(error)) if is_memory(&error) => return Err(LoadError::Spent(Spent::Memory, stage, None)),
                (None, Err(error)) => return Err(broken(stage, &error)),
                (None, Ok(())) => {}
            }
        }
        environment.set_readonly(true);
        let mut functions = [const { None }; 3];
        for (index, function) in functions.iter_mut().enumerate() {
            if compiled.scripts[index].is_some() {
                *function = Some(stage_function(&environment, STAGES[index]).map_err(|e| LoadError::Broken(e.into_rejection()))?);
            }
        }
        let environment = Environment {
            #[cfg(feature = "oracle")]
            functions: functions.clone(),
            pins: Pins::new(&self.lua, Makers::new(self.native, self.forms_after), functions, fields)
                .map_err(|e| broken(StageName::Decode, &e))?,
        };
        self.spare_references();
        Ok(environment)
    }

    fn environment(&self) -> mlua::Result<Table> {
        let metatable = self.lua.create_table_with_capacity(0, 2)?;
        metatable.raw_set("__index", &self.globals)?;
        metatable.raw_set("__metatable", false)?;
        metatable.set_readonly(true);
        let environment = self.lua.create_table()?;
        environment.set_metatable(Some(metatable))?;
        environment.set_safeenv(true);
        Ok(environment)
    }

    /// An asset's attributes as a read-only table.
    pub(crate) fn attributes(&mut self, event: &Event) -> mlua::Result<Table> {
        let Some(asset) = event.asset.as_ref().filter(|a| !a.asset.attributes.is_empty()) else { return Ok(self.empty.clone()) };
        let key = Arc::as_ptr(asset) as usize;
        if let Some((_, table)) = self.attributes.get(&key) {
            return Ok(table.clone());
        }
        let table = self.lua.create_table_with_capacity(0, asset.asset.attributes.len())?;
        for (name, value) in &asset.asset.attributes {
            table.raw_set(name.as_str(), value.as_str())?;
        }
        table.set_readonly(true);
        if self.attributes.len() >= ATTRIBUTES_KEPT {
            self.attributes.clear();
        }
        self.attributes.insert(key, (Arc::clone(asset), table.clone()));
        self.spare_references();
        Ok(table)
    }

    /// The headers that the source lets through, as a read-only table.
    pub(crate) fn meta(&mut self, envelope: &Arc<Envelope>, source: &PinnedSource) -> mlua::Result<Table> {
        if source.source.meta.is_empty() || envelope.meta.is_empty() {
            return Ok(self.empty.clone());
        }
        if let Some((of, table)) = &self.meta
            && Arc::ptr_eq(of, envelope)
        {
            return Ok(table.clone());
        }
        let table = self.lua.create_table()?;
        for name in &source.source.meta {
            if let Some(value) = envelope.meta.get(&header_key(name)) {
                table.raw_set(name.to_ascii_lowercase(), value.as_str())?;
            }
        }
        table.set_readonly(true);
        self.meta = Some((Arc::clone(envelope), table.clone()));
        self.spare_references();
        Ok(table)
    }
}

fn stage_function(environment: &Table, stage: StageName) -> Result<Function, ScriptError> {
    let names: &[&str] = match stage {
        StageName::Decode => &["decode", "decodeUplink"],
        StageName::Validate => &["validate"],
        _ => &["transform"],
    };
    let found = names.iter().find_map(|n| environment.raw_get::<Value>(*n).ok()?.as_function().cloned());
    found.ok_or_else(|| ScriptError { stage, line: None, message: format!("the script defines no function {}", names.join(" or ")) })
}

/// What runs once in every state, compiled once in the process.
static HOT: OnceLock<Vec<u8>> = OnceLock::new();
const HOT_SOURCE: &str = include_str!("hot.luau");
static PRELUDE: OnceLock<Vec<u8>> = OnceLock::new();
const PRELUDE_SOURCE: &str = concat!(include_str!("prelude.luau"), include_str!("tide/library.luau"));

/// The bytecode of one of them.
fn own(bytecode: &'static OnceLock<Vec<u8>>, source: &str) -> mlua::Result<&'static [u8]> {
    if let Some(bytecode) = bytecode.get() {
        return Ok(bytecode);
    }
    let compiled = host_compiler().compile(source)?;
    Ok(bytecode.get_or_init(|| compiled))
}

/// Compiles what the host itself gives to a state.
pub(crate) fn host_compiler() -> Compiler {
    Compiler::new().set_optimization_level(2).set_disabled_builtins(CALLED)
}
