//! Events into Luau and their results out of it, by Luau's C API: the only file of this crate with `unsafe`.
//!
//! ```text
//! cross ─▶ protected call ─▶ stages: push tables ─▶ decode ─▶ validate ─▶ transform   (C functions: may raise)
//!    └───▶ read what was left on the stack, through slots                              (may not)
//! ```
//! What every block below relies on:
//!
//! 1. Luau raises errors as C++ exceptions. They pass through [`stages`], [`interrupt`] and [`traced`] only, which are
//!    `extern "C-unwind"` as the frames of C++ around them expect, and hold nothing that would have to be dropped while they
//!    call what may raise: what they need lives in a [`Frame`] outside of the protected call.
//! 2. Outside of it, only functions of the API are called that neither allocate nor raise: of types, plain values, raw reads
//!    of tables, and the stack's top. So Rust's values may live as they like there.
//! 3. Nothing but the API changes a state, and one thread has it: while a [`Slot`] lives no script runs, and the collector
//!    neither, so what a slot refers to stays where it is.
//! 4. [`cross`] makes room on the stack for everything that the reading needs: [`ROOM`].

#![allow(unsafe_code)]

use crate::event::Event;
use crate::script::driver::{Ended, Name, Run, Transforming, names};
use crate::script::enter::{exact, is_input};
use crate::script::leave::{Lent, number};
use crate::script::makers::{self, Makers};
use crate::script::meter::Meter;
use crate::stages::transform::fields::Scalar;
use hashbrown::HashMap;
use mlua::ffi::*;
use mlua::{FromLua, Function, IntoLua, Lua, Table, Value as LuaValue};
use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::fmt::Write;
use std::ptr;
use tidegate_schemas::definition::PayloadForm;
use tidegate_schemas::document::{Kind, Value};
use tidegate_schemas::limits::{JSON_DEPTH_MAX, RESULT_DEPTH_MAX, SCRIPT_NAME_BYTES_KEPT, SCRIPT_NAMES_KEPT};
use tidegate_schemas::verdict::StageName;

/// Slots of the stack: a document's levels take up to three each while it is pushed, a result's two while it is read (within
/// a row, within a list of rows); the rest is for the stages' own values.
const ROOM: c_int = 3 * JSON_DEPTH_MAX as c_int + 2 * RESULT_DEPTH_MAX as c_int + 64;
/// Pairs of a table on the stack before they are taken off together.
const PAIRS: usize = 8;
/// What the interrupt raises. Nobody sees it: the meter knows better.
const SPENT: &str = "out of steps or time";

/// Where a state keeps what crossing takes.
pub(crate) struct Crossing {
    stages: Function,
    traced: Function,
    /// Makes a decoder's argument.
    input: Function,
    /// So that raising it allocates nothing.
    _spent: mlua::String,
}

/// What Luau keeps of a template version: its functions, and the names of members as Luau's own strings.
pub(crate) struct Pins {
    table: Table,
    /// Of documents, in the order in which they came.
    names: Vec<Box<str>>,
    by_name: HashMap<Box<str>, usize>,
    makers: Makers,
    /// Where the documents' names begin.
    first: usize,
    /// Luau's own strings of the declared fields' names, then of `occurred_at` and `event_type`: compared, never looked into.
    fields: Vec<*const c_void>,
    /// The pairs of the row before, key and field: most rows are walked in the same order.
    order: RefCell<Vec<(*const c_void, usize)>>,
}

/// What goes into one crossing.
pub(crate) struct Crossed<'a> {
    pub(crate) lua: &'a Lua,
    pub(crate) meter: &'a Meter,
    pub(crate) run: Run,
    pub(crate) event: &'a Event,
    pub(crate) inputs: &'a [String],
    /// The device's bytes, and the form in which the decoder gets them.
    pub(crate) payload: Option<(&'a [u8], PayloadForm)>,
    pub(crate) f_port: Option<f64>,
    /// The asset's attributes and the request's headers.
    pub(crate) attributes: &'a Table,
    pub(crate) meta: &'a Table,
}

impl Crossed<'_> {
    /// Whether scripts see something decoded beside the document.
    fn is_decoded(&self) -> bool {
        self.run.decode || self.event.decoded.is_some()
    }
}

/// What [`stages`] works on, for as long as a protected call lasts.
struct Frame<'a> {
    of: &'a Crossed<'a>,
    pins: &'a mut Pins,
    /// Which of the pinned names is expected next: most documents are like the one before.
    next: usize,
    /// The function that makes such documents.
    maker: Option<usize>,
    digits: String,
    end: End,
}

/// How the stages ended; the values of it are what [`stages`] returned.
#[derive(Clone, Copy)]
enum End {
    Invalid(StageName),
    Errors,
    NoData,
    Refused,
    Filtered,
    Rows,
    Decoded(bool),
    Later(bool),
}

impl Crossing {
    /// Prepares a state, and has its safepoints counted. `input` is the function that makes a decoder's argument.
    pub(crate) fn new(lua: &Lua, input: Function) -> mlua::Result<Self> {
        // SAFETY: both keep to what Luau expects of a C function (rule 1).
        let (stages, traced) = unsafe { (lua.create_c_function(stages)?, lua.create_c_function(traced)?) };
        // SAFETY: the state is alive, and the callback keeps to what Luau expects of it (rule 1).
        lua.exec_raw_lua(|raw| unsafe { (*lua_callbacks(raw.state())).interrupt = Some(interrupt) });
        Ok(Self { stages, traced, input, _spent: lua.create_string(SPENT)? })
    }
}

impl Pins {
    /// Pins the stages' functions and the names of the declared fields.
    pub(crate) fn new<'a>(
        lua: &Lua,
        makers: Makers,
        functions: [Option<Function>; 3],
        fields: impl Iterator<Item = &'a str>,
    ) -> mlua::Result<Self> {
        let table = lua.create_table()?;
        let mut count = 0;
        for function in functions {
            count += 1;
            match function {
                Some(function) => table.raw_set(count, function)?,
                // A list has no holes.
                None => table.raw_set(count, false)?,
            }
        }
        for name in names::ALL.iter().map(|n| n.text).chain(fields) {
            count += 1;
            table.raw_set(count, name)?;
        }
        let (first, own) = (count + 1, 4 + names::ALL.len());
        let places = (own..first).chain([names::OCCURRED_AT.pin, names::EVENT_TYPE.pin]);
        let fields = places.map(|place| Ok(table.raw_get::<mlua::String>(place)?.to_pointer())).collect::<mlua::Result<_>>()?;
        let (names, by_name) = (Vec::new(), HashMap::new());
        Ok(Self { table, names, by_name, makers, first, fields, order: RefCell::default() })
    }

    /// The function that makes documents like this one.
    fn maker(&mut self, of: &Crossed<'_>) -> Option<usize> {
        let form = of.event.document.form().filter(|_| of.run.reads_event())?;
        self.makers.find(of.lua, &self.table, form, of.inputs, of.is_decoded())
    }

    /// Which of the fields a key is, that came as number `count` of its row.
    #[inline]
    fn field(&self, key: *const c_void, count: usize, order: &mut Vec<(*const c_void, usize)>) -> Option<usize> {
        match order.get(count) {
            Some((expected, field)) if *expected == key => Some(*field),
            _ => self.other_field(key, count, order),
        }
    }

    #[inline(never)]
    fn other_field(&self, key: *const c_void, count: usize, order: &mut Vec<(*const c_void, usize)>) -> Option<usize> {
        let found = self.fields.iter().position(|field| *field == key)?;
        if count <= order.len() {
            order.truncate(count);
            order.push((key, found));
        }
        Some(found)
    }

    /// The place of a name where it is pinned. `next` is where it is looked for first.
    fn find(&self, name: &str, next: &mut usize) -> Option<usize> {
        let at = match self.names.get(*next) {
            Some(known) if **known == *name => *next,
            _ => *self.by_name.get(name)?,
        };
        *next = at + 1;
        Some(at)
    }

    fn has_room_for(&self, name: &str) -> bool {
        self.names.len() < SCRIPT_NAMES_KEPT && name.len() <= SCRIPT_NAME_BYTES_KEPT
    }

    fn add(&mut self, name: &str) {
        self.by_name.insert(name.into(), self.names.len());
        self.names.push(name.into());
    }
}

thread_local! {
    /// Whose steps are counted on this thread.
    static METER: Cell<*const Meter> = const { Cell::new(ptr::null()) };
}

/// Runs `f` with the safepoints of this thread counted on `meter`.
pub(crate) fn counted<R>(meter: &Meter, f: impl FnOnce() -> R) -> R {
    struct Restored(*const Meter);
    impl Drop for Restored {
        fn drop(&mut self) {
            METER.set(self.0);
        }
    }
    let _restored = Restored(METER.replace(meter));
    f()
}

/// One safepoint, or a step of the collector, which is none.
unsafe extern "C-unwind" fn interrupt(l: *mut lua_State, gc: c_int) {
    if gc >= 0 {
        return;
    }
    // SAFETY: the pointer is null or that of a meter which `counted` borrows until it has reset it.
    let Some(meter) = (unsafe { METER.get().as_ref() }) else { return };
    if !meter.step() {
        // SAFETY: Luau calls an interrupt where it may raise; nothing here waits to be dropped.
        unsafe { raise(l) }
    }
}

/// Ends the script. It is asked again at the next safepoint, where it caught this.
unsafe fn raise(l: *mut lua_State) -> ! {
    // SAFETY: the caller is where Luau may raise. The interrupt of native code finds no room made for it.
    unsafe {
        lua_rawcheckstack(l, 1);
        lua_pushlstring_(l, SPENT.as_ptr().cast(), SPENT.len());
        lua_error(l)
    }
}

/// The handler of errors: adds the stack to what a script or the library raised.
unsafe extern "C-unwind" fn traced(l: *mut lua_State) -> c_int {
    // SAFETY: a C function may raise, and nothing here waits to be dropped. There is one argument, the error.
    unsafe {
        // The script is over, and what is told of it must not depend on what the heap has room for.
        let _ = Lua::get_or_init_from_ptr(l).set_memory_limit(0);
        // What a function of the host raised knows its stack.
        if lua_type(l, 1) == LUA_TUSERDATA || lua_checkstack(l, LUA_TRACEBACK_STACK + 2) == 0 {
            return 1;
        }
        let text = luaL_tolstring(l, 1, ptr::null_mut());
        luaL_traceback(l, l, text, 0);
        1
    }
}

/// The bytes of a string on the stack.
///
/// # Safety
/// There is a string at `at`, and it stays there as long as the bytes are used.
unsafe fn text<'s>(l: *mut lua_State, at: c_int) -> &'s [u8] {
    let mut len = 0;
    // SAFETY: of a string the API gives its own bytes, without a conversion.
    unsafe {
        let start = lua_tolstring(l, at, &mut len);
        std::slice::from_raw_parts(start.cast(), len)
    }
}

/// Brings an event into Luau, runs its stages, and hands over to `read` how they ended. What a script raised is an error.
pub(crate) fn cross<R>(crossing: &Crossing, pins: &mut Pins, of: &Crossed<'_>, read: impl FnOnce(mlua::Result<Ended<Slot<'_>>>) -> R) -> R {
    of.lua.exec_raw_lua(|raw| {
        let l = raw.state();
        // SAFETY: the state is alive and this thread's alone while `exec_raw_lua` has it locked; asking for room does not
        // raise but answers 0, and pushing references or plain values takes nothing but room.
        unsafe {
            let top = Top::of(l);
            if lua_checkstack(l, ROOM) == 0 {
                return read(Err(mlua::Error::StackError));
            }
            let (pinned, handler) = (top.at + 1, top.at + 2);
            let pushed = (&pins.table).push_into_stack(raw).and_then(|()| (&crossing.traced).push_into_stack(raw));
            let pushed = pushed.and_then(|()| (&crossing.stages).push_into_stack(raw));
            let maker = pins.maker(of);
            let mut frame = Frame { of, pins, next: 0, maker, digits: String::new(), end: End::Filtered };
            lua_pushlightuserdata(l, (&raw mut frame).cast());
            lua_pushvalue(l, pinned);
            let pushed = pushed.and_then(|()| of.attributes.push_into_stack(raw)).and_then(|()| of.meta.push_into_stack(raw));
            let pushed = pushed.and_then(|()| (&crossing.input).push_into_stack(raw));
            if let Err(error) = pushed {
                return read(Err(error));
            }
            let status = counted(of.meter, || lua_pcall(l, 5, LUA_MULTRET, handler));
            let first = handler + 1;
            if status == LUA_OK {
                let Frame { pins, end, .. } = frame;
                let slot = |n: c_int| Slot { l, at: first + n, pinned, pins };
                return read(Ok(match end {
                    End::Invalid(stage) => Ended::Invalid(stage, slot(0)),
                    End::Errors => Ended::Errors(slot(0)),
                    End::NoData => Ended::NoData(slot(0)),
                    End::Refused => Ended::Refused(slot(0), slot(1)),
                    End::Filtered => Ended::Filtered,
                    End::Rows => Ended::Rows(slot(0)),
                    End::Decoded(any) => Ended::Decoded(any.then(|| slot(0))),
                    End::Later(any) => Ended::Later(any.then(|| slot(0))),
                }));
            }
            read(Err(if status == LUA_ERRMEM {
                mlua::Error::MemoryError("not enough memory".into())
            } else if lua_type(l, first) == LUA_TSTRING {
                mlua::Error::RuntimeError(String::from_utf8_lossy(text(l, first)).into_owned())
            } else {
                match LuaValue::from_stack(first, raw) {
                    Ok(LuaValue::Error(error)) => *error,
                    Ok(other) => mlua::Error::RuntimeError(format!("a {} was raised", other.type_name())),
                    Err(error) => error,
                }
            }))
        }
    })
}

/// Takes the stack back to where it was.
struct Top {
    l: *mut lua_State,
    at: c_int,
}

impl Top {
    /// # Safety
    /// The state outlives the value, and nothing below its top is taken off meanwhile.
    unsafe fn of(l: *mut lua_State) -> Self {
        // SAFETY: the state is alive.
        Self { l, at: unsafe { lua_gettop(l) } }
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        // SAFETY: by `of` the state is alive and its stack no lower; giving up places does not raise.
        unsafe { lua_settop(self.l, self.at) }
    }
}

// Arguments of `stages`.
const FRAME: c_int = 1;
const PINNED: c_int = 2;
const GIVEN_ATTRIBUTES: c_int = 3;
const GIVEN_META: c_int = 4;
const MAKES_INPUT: c_int = 5;

/// The stages of a run, over one event.
unsafe extern "C-unwind" fn stages(l: *mut lua_State) -> c_int {
    // SAFETY: `cross` passes its frame, which outlives the protected call and is used by nobody else meanwhile. The
    // functions below are called with the arguments that this one got.
    unsafe {
        let frame = &mut *lua_tolightuserdata(l, FRAME).cast::<Frame<'_>>();
        let run = frame.of.run;
        if lua_checkstack(l, ROOM) == 0 {
            raise(l);
        }
        if run.decode && !frame.decode(l) {
            return 1;
        }
        // What was decoded is on top, where the run decodes.
        let data = lua_gettop(l);
        if run.reads_event() {
            frame.push_event(l, run.decode.then_some(data));
        }
        let event = data + 1;
        if run.validate {
            lua_rawgeti_(l, PINNED, 2);
            lua_pushvalue(l, event);
            frame.call(l, 2, 2);
            if lua_type(l, -2) != LUA_TBOOLEAN || lua_toboolean(l, -2) == 0 {
                frame.end = End::Refused;
                return 2;
            }
            lua_settop(l, event);
        }
        match run.transform {
            Transforming::Script => {
                lua_rawgeti_(l, PINNED, 3);
                lua_pushvalue(l, event);
                frame.call(l, 3, 1);
                frame.end = match lua_type(l, -1) {
                    LUA_TNIL => End::Filtered,
                    LUA_TTABLE => End::Rows,
                    _ => End::Invalid(StageName::Transform),
                };
                1
            }
            Transforming::Later(_) if !run.decode => {
                frame.end = End::Later(false);
                0
            }
            Transforming::Default | Transforming::Later(_) => {
                lua_settop(l, data);
                let any = !is_absent(l, data);
                let is_row = run.transform == Transforming::Default && (!any || lua_type(l, data) == LUA_TTABLE);
                frame.end = if is_row { End::Decoded(any) } else { End::Later(true) };
                1
            }
        }
    }
}

/// Whether the value is nil or null.
unsafe fn is_absent(l: *mut lua_State, at: c_int) -> bool {
    // SAFETY: `at` is a place of the stack, by the caller.
    unsafe {
        match lua_type(l, at) {
            LUA_TNIL => true,
            LUA_TLIGHTUSERDATA => lua_tolightuserdata(l, at).is_null(),
            _ => false,
        }
    }
}

/// Called by [`stages`] with its arguments on the stack, within the protected call.
impl Frame<'_> {
    /// Runs the decoder: true with what it returned as data on top, else how it ended is noted.
    unsafe fn decode(&mut self, l: *mut lua_State) -> bool {
        // SAFETY: as the `impl` says; nothing here waits to be dropped.
        unsafe {
            lua_rawgeti_(l, PINNED, 1);
            self.push_input(l);
            self.call(l, 1, 1);
            if lua_type(l, -1) != LUA_TTABLE {
                self.end = End::Invalid(StageName::Decode);
                return false;
            }
            let out = lua_gettop(l);
            pinned(l, names::ERRORS);
            lua_rawget(l, out);
            let none = is_absent(l, -1) || (lua_type(l, -1) == LUA_TTABLE && is_empty(l, out + 1));
            if !none {
                self.end = End::Errors;
                return false;
            }
            lua_settop(l, out);
            pinned(l, names::DATA);
            lua_rawget(l, out);
            if lua_type(l, -1) == LUA_TNIL && has_others(l, out) {
                lua_settop(l, out);
                self.end = End::NoData;
                return false;
            }
            true
        }
    }

    /// The decoder's argument.
    unsafe fn push_input(&mut self, l: *mut lua_State) {
        let of = self.of;
        // SAFETY: as the `impl` says; nothing here waits to be dropped. Buffers are as long as was asked for.
        unsafe {
            lua_pushvalue(l, MAKES_INPUT);
            match of.payload {
                None => lua_pushnil(l),
                Some((bytes, PayloadForm::Buffer)) => {
                    let buffer = lua_newbuffer(l, bytes.len()).cast::<u8>();
                    ptr::copy_nonoverlapping(bytes.as_ptr(), buffer, bytes.len());
                }
                Some((bytes, PayloadForm::String)) => lua_pushlstring_(l, bytes.as_ptr().cast(), bytes.len()),
                Some((bytes, PayloadForm::Bytes)) => {
                    lua_createtable(l, bytes.len() as c_int, 0);
                    for (i, byte) in bytes.iter().enumerate() {
                        lua_pushnumber(l, f64::from(*byte));
                        lua_rawseti_(l, -2, i as c_int + 1);
                    }
                }
            }
            match of.f_port {
                None => lua_pushnil(l),
                Some(port) => lua_pushnumber(l, port),
            }
            lua_pushnumber(l, of.event.origin.received_at as f64 / 1_000.0);
            push_text(l, &of.event.origin.asset);
            lua_pushvalue(l, GIVEN_ATTRIBUTES);
            lua_pushvalue(l, GIVEN_META);
            make(l, 6);
        }
    }

    /// The event as validators and transforms see it. `data` is where on the stack what was decoded is.
    unsafe fn push_event(&mut self, l: *mut lua_State, data: Option<c_int>) {
        let (event, with_decoded) = (self.of.event, self.of.is_decoded());
        let root = event.document.root();
        // SAFETY: as the `impl` says; nothing here waits to be dropped. A function is pinned where it is told to be.
        unsafe {
            if let Some(maker) = self.maker {
                lua_rawgeti_(l, PINNED, makers::pin(maker));
                let scalars = self.pins.makers.scalars(maker);
                for number in scalars {
                    push_scalar(l, &mut self.digits, event.document.scalar(*number));
                }
                let arguments = scalars.len() as c_int + c_int::from(with_decoded);
                self.push_decoded(l, data);
                make(l, arguments);
                return;
            }
            match root.kind() {
                Kind::Map(_) => self.push_object(l, root, usize::from(with_decoded), self.of.inputs),
                _ => {
                    lua_createtable(l, 0, 1 + c_int::from(with_decoded));
                    pinned(l, names::VALUE);
                    self.push_value(l, root);
                    lua_rawset(l, -3);
                }
            }
            if with_decoded {
                pinned(l, names::DECODED);
                self.push_decoded(l, data);
                lua_rawset(l, -3);
            }
        }
    }

    /// What was decoded, where something was.
    unsafe fn push_decoded(&mut self, l: *mut lua_State, data: Option<c_int>) {
        // SAFETY: as the `impl` says; nothing here waits to be dropped.
        unsafe {
            match (data, &self.of.event.decoded) {
                (Some(data), _) => lua_pushvalue(l, data),
                (None, Some(decoded)) => self.push_value(l, decoded.root()),
                (None, None) => {}
            }
        }
    }

    /// A member's name, found at `place` or not at all; it is pinned where there is room.
    unsafe fn push_name(&mut self, l: *mut lua_State, name: &str, place: Option<usize>) {
        // SAFETY: as the `impl` says; nothing here waits to be dropped. A name is known once its string is in its place.
        unsafe {
            match place {
                Some(at) => {
                    lua_rawgeti_(l, PINNED, (self.pins.first + at) as c_int);
                }
                None => {
                    push_text(l, name);
                    if self.pins.has_room_for(name) {
                        lua_pushvalue(l, -1);
                        lua_rawseti_(l, PINNED, (self.pins.first + self.pins.names.len()) as c_int);
                        self.pins.add(name);
                    }
                }
            }
        }
    }

    /// A value of a document, whatever its form; a document is no deeper than the room that there is.
    unsafe fn push_value(&mut self, l: *mut lua_State, value: Value<'_>) {
        // SAFETY: as the `impl` says; iterators over a document hold references only.
        unsafe {
            match value.kind() {
                Kind::List(len) => {
                    lua_createtable(l, len as c_int, 0);
                    for (i, element) in value.elements().enumerate() {
                        self.push_value(l, element);
                        lua_rawseti_(l, -2, i as c_int + 1);
                    }
                }
                Kind::Map(_) => self.push_object(l, value, 0, &[]),
                scalar => push_scalar(l, &mut self.digits, scalar),
            }
        }
    }

    /// An object as a table of those members that are inputs, with room for so many more: how large it is made decides on the
    /// order in which a script meets its members.
    unsafe fn push_object(&mut self, l: *mut lua_State, object: Value<'_>, more: usize, inputs: &[String]) {
        let members = match object.kind() {
            Kind::Map(len) if inputs.is_empty() => len,
            _ => object.pairs().filter(|(name, _)| is_input(inputs, name)).count(),
        };
        // SAFETY: as the `impl` says; iterators over a document hold references only.
        unsafe {
            lua_createtable(l, 0, (members + more) as c_int);
            for (name, value) in object.pairs().filter(|(name, _)| is_input(inputs, name)) {
                let at = self.pins.find(name, &mut self.next);
                self.push_name(l, name, at);
                self.push_value(l, value);
                lua_rawset(l, -3);
            }
        }
    }

    /// Calls a stage's function, 1 to 3, that stands below its argument, within what the event may spend.
    unsafe fn call(&mut self, l: *mut lua_State, stage: usize, results: c_int) {
        let (lua, meter) = (self.of.lua, self.of.meter);
        // SAFETY: as the `impl` says; a state's functions are pinned at their numbers.
        unsafe {
            if !meter.enter(lua, stage - 1) {
                raise(l);
            }
            lua_call(l, 1, results);
        }
        meter.leave(lua);
    }
}

/// Calls a function of the host that makes a table, within [`stages`]: no script pays for it. Where it raises, `counted` puts
/// everything right.
unsafe fn make(l: *mut lua_State, arguments: c_int) {
    let meter = METER.replace(ptr::null());
    // SAFETY: the function and its arguments are on the stack, by the caller; nothing here waits to be dropped.
    unsafe { lua_call(l, arguments, 1) };
    METER.set(meter);
}

/// Pushes a name that the host pinned, within [`stages`].
unsafe fn pinned(l: *mut lua_State, name: Name<'_>) {
    // SAFETY: the table is an argument of `stages`; a raw read takes room only.
    unsafe { lua_rawgeti_(l, PINNED, name.pin as c_int) };
}

/// Pushes a text, within [`stages`].
unsafe fn push_text(l: *mut lua_State, text: &str) {
    // SAFETY: the text is a reference, nothing is to be dropped where this raises.
    unsafe { lua_pushlstring_(l, text.as_ptr().cast(), text.len()) }
}

/// Pushes a value of a document that is no container, within [`stages`]. `digits` is memory for large numbers.
unsafe fn push_scalar(l: *mut lua_State, digits: &mut String, scalar: Kind<'_>) {
    // SAFETY: the document's texts and the digits are references, nothing is to be dropped where this raises.
    unsafe {
        match scalar {
            Kind::Text(text) => return push_text(l, text),
            Kind::Bool(b) => return lua_pushboolean(l, c_int::from(b)),
            Kind::Float(f) => return lua_pushnumber(l, f),
            Kind::Int(i) => match exact(i) {
                Some(n) => return lua_pushnumber(l, n),
                None => write_digits(digits, format_args!("{i}")),
            },
            Kind::Uint(u) => write_digits(digits, format_args!("{u}")),
            Kind::Null | Kind::List(_) | Kind::Map(_) => return lua_pushlightuserdata(l, ptr::null_mut::<c_void>()),
        }
        push_text(l, digits);
    }
}

fn write_digits(out: &mut String, number: std::fmt::Arguments<'_>) {
    out.clear();
    // Writing to a String cannot fail.
    let _ = out.write_fmt(number);
}

unsafe fn is_empty(l: *mut lua_State, table: c_int) -> bool {
    // SAFETY: there is a table at `table`, by the caller; what was pushed is taken off.
    unsafe {
        let top = lua_gettop(l);
        let next = lua_rawiter(l, table, 0);
        lua_settop(l, top);
        next < 0
    }
}

/// Whether a decoder's result has members besides `errors` and `warnings`, within [`stages`].
unsafe fn has_others(l: *mut lua_State, table: c_int) -> bool {
    // SAFETY: there is a table at `table`, by the caller; the stack has room, and what was pushed is taken off.
    unsafe {
        let (top, mut place) = (lua_gettop(l), 0);
        loop {
            place = lua_rawiter(l, table, place);
            if place < 0 {
                return false;
            }
            pinned(l, names::ERRORS);
            pinned(l, names::WARNINGS);
            let is_known = lua_rawequal(l, top + 1, top + 3) != 0 || lua_rawequal(l, top + 1, top + 4) != 0;
            lua_settop(l, top);
            if !is_known {
                return true;
            }
        }
    }
}

/// A value on the stack, for as long as it is lent.
pub(crate) struct Slot<'s> {
    l: *mut lua_State,
    at: c_int,
    /// Where the table of pinned names is.
    pinned: c_int,
    pins: &'s Pins,
}

/// What every block here relies on, beside the rules above: only `cross` makes slots, of values that stand on the stack while
/// `read` runs; others are made of those, for values that were just pushed and stand there until their closure has ended.
impl Slot<'_> {
    /// The value as a scalar.
    ///
    /// # Safety
    /// The value stays where the collector finds it for as long as the scalar is used.
    #[inline(always)]
    unsafe fn lent_scalar<'a>(&self) -> Scalar<'a> {
        // SAFETY: the slot's value is on the stack; the text's bytes are the caller's care.
        unsafe {
            match lua_type(self.l, self.at) {
                LUA_TNUMBER => number(lua_tonumber(self.l, self.at)),
                LUA_TSTRING => match std::str::from_utf8(text(self.l, self.at)) {
                    Ok(text) => Scalar::Text(text),
                    Err(_) => Scalar::Other(NO_UTF8),
                },
                LUA_TBOOLEAN => Scalar::Bool(lua_toboolean(self.l, self.at) != 0),
                LUA_TNIL => Scalar::Null,
                LUA_TLIGHTUSERDATA if lua_tolightuserdata(self.l, self.at).is_null() => Scalar::Null,
                kind => Scalar::Other(kind_name(kind)),
            }
        }
    }

    /// What a closure makes of the value on top of the stack.
    fn on_top<R>(&self, f: impl FnOnce(&Self) -> R) -> R {
        // SAFETY: reading the top.
        let at = unsafe { lua_gettop(self.l) };
        f(&Self { at, ..*self })
    }
}

impl Lent for Slot<'_> {
    type Place = c_int;

    fn name(&self) -> &'static str {
        // SAFETY: the slot's value is on the stack.
        unsafe {
            match lua_type(self.l, self.at) {
                LUA_TNIL => "nil",
                _ if is_absent(self.l, self.at) => "null",
                kind => kind_name(kind),
            }
        }
    }

    fn is_nil(&self) -> bool {
        // SAFETY: the slot's value is on the stack.
        unsafe { lua_type(self.l, self.at) == LUA_TNIL }
    }

    fn is_table(&self) -> bool {
        // SAFETY: the slot's value is on the stack.
        unsafe { lua_type(self.l, self.at) == LUA_TTABLE }
    }

    fn text_lossy(&self) -> Option<String> {
        // SAFETY: the slot's value is on the stack, and its bytes are copied before anything else happens.
        unsafe { (lua_type(self.l, self.at) == LUA_TSTRING).then(|| String::from_utf8_lossy(text(self.l, self.at)).into_owned()) }
    }

    fn scalar<R>(&self, f: impl FnOnce(Scalar<'_>) -> R) -> R {
        // SAFETY: the slot's value stays on the stack while the closure has its bytes.
        f(unsafe { self.lent_scalar() })
    }

    fn len(&self) -> usize {
        // SAFETY: the slot's value is on the stack; the length of a table is read without its metatable.
        if self.is_table() { unsafe { lua_objlen(self.l, self.at) } } else { 0 }
    }

    fn count(&self, most: usize, mut meet: impl FnMut(usize, Scalar<'_>)) -> (usize, bool) {
        if !self.is_table() {
            return (0, true);
        }
        let (mut order, mut count, mut place) = (self.pins.order.borrow_mut(), 0, 0);
        // SAFETY: the slot's value is on the stack, which has room for some pairs, and `place` is one that the walk gave. Values
        // stay on the stack for as long as the closure has them.
        unsafe {
            let top = Top::of(self.l);
            while count < most {
                let key = top.at + 1 + 2 * (count % PAIRS) as c_int;
                place = lua_rawiter(self.l, self.at, place);
                if place < 0 {
                    return (count, true);
                }
                if let Some(field) = self.pins.field(lua_topointer(self.l, key), count, &mut order) {
                    meet(field, Slot { at: key + 1, ..*self }.lent_scalar());
                }
                count += 1;
                if count % PAIRS == 0 {
                    lua_settop(self.l, top.at);
                }
            }
        }
        (count, false)
    }

    fn element<R>(&self, i: usize, f: impl FnOnce(&Self) -> R) -> R {
        // SAFETY: the slot's value is on the stack, which has room, and a table is read without its metatable.
        unsafe {
            let _top = Top::of(self.l);
            match c_int::try_from(i) {
                Ok(i) if self.is_table() => {
                    lua_rawgeti_(self.l, self.at, i);
                }
                _ => lua_pushnil(self.l),
            }
            self.on_top(f)
        }
    }

    fn member<R>(&self, name: Name<'_>, f: impl FnOnce(&Self) -> R) -> R {
        // SAFETY: the slot's value and the pinned names are on the stack, which has room, and a table is read without its
        // metatable.
        unsafe {
            let _top = Top::of(self.l);
            if self.is_table() {
                lua_rawgeti_(self.l, self.pinned, name.pin as c_int);
                lua_rawget(self.l, self.at);
            } else {
                lua_pushnil(self.l);
            }
            self.on_top(f)
        }
    }

    fn each<E>(&self, mut f: impl FnMut(&Self, &Self, c_int) -> Result<(), E>) -> Result<(), E> {
        if !self.is_table() {
            return Ok(());
        }
        let mut place = 0;
        loop {
            // SAFETY: the slot's value is on the stack, which has room, and `place` is one that the walk gave.
            unsafe {
                let top = Top::of(self.l);
                let next = lua_rawiter(self.l, self.at, place);
                if next < 0 {
                    return Ok(());
                }
                let (key, value) = (Self { at: top.at + 1, ..*self }, Self { at: top.at + 2, ..*self });
                f(&key, &value, place)?;
                place = next;
            }
        }
    }

    fn at<R>(&self, place: &c_int, f: impl FnOnce(&Self) -> R) -> R {
        // SAFETY: the slot's value is on the stack, which has room, and `place` is one that the walk gave.
        unsafe {
            let _top = Top::of(self.l);
            if lua_rawiter(self.l, self.at, *place) < 0 {
                lua_pushnil(self.l);
            }
            self.on_top(f)
        }
    }
}

/// A type as scripts call it.
fn kind_name(kind: c_int) -> &'static str {
    match kind {
        LUA_TNIL => "nil",
        LUA_TBOOLEAN => "boolean",
        LUA_TNUMBER => "number",
        LUA_TSTRING => "string",
        LUA_TTABLE => "table",
        LUA_TFUNCTION => "function",
        LUA_TBUFFER => "buffer",
        LUA_TVECTOR => "vector",
        LUA_TTHREAD => "thread",
        _ => "userdata",
    }
}

/// What a string is that is no text.
pub(crate) const NO_UTF8: &str = "string of bytes that are no UTF-8";
