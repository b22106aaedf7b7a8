//! Which requests the fleet makes: a list that follows from the seed and the number of events alone.

use super::random::Random;

/// What a request carries; each stream has a source of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Telemetry,
    Lorawan,
    Motion,
    Lab,
    Turnstile,
}

impl Stream {
    /// The source's id.
    pub(super) fn source(self) -> &'static str {
        match self {
            Self::Telemetry => "telemetry",
            Self::Lorawan => "lorawan",
            Self::Motion => "motion",
            Self::Lab => "lab",
            Self::Turnstile => "turnstile",
        }
    }
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Array,
    Lines,
    /// One object.
    Alone,
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Its number; a repeat has that of the first.
    pub(super) number: u64,
    pub(super) stream: Stream,
    pub(super) tenant: &'static str,
    pub(super) form: Form,
    pub(super) events: u32,
    /// Whether it was made before: a sender that did not get its answer.
    pub(super) repeat: bool,
    /// Whether its body is no JSON at all.
    pub(super) spoiled: bool,
}

/// The requests of about so many events.
pub(super) fn schedule(seed: u64, events: u64) -> Vec<Request> {
    const LORAWAN: [&str; 4] = ["acme", "northwind", "harbor", "lakeside"];
    let mut list = Vec::new();
    let mut add = |stream, tenants: &[&'static str], forms: &[Form], size: u32, share: u64| {
        for i in 0..(events * share / 1_000).div_ceil(u64::from(size)) as usize {
            let number = list.len() as u64;
            let (tenant, form) = (tenants[i % tenants.len()], forms[i / tenants.len() % forms.len()]);
            list.push(Request { number, stream, tenant, form, events: size, repeat: false, spoiled: false });
        }
    };
    add(Stream::Telemetry, &["harbor", "lakeside"], &[Form::Array, Form::Lines], 250, 590);
    add(Stream::Lorawan, &LORAWAN, &[Form::Array, Form::Lines], 100, 330);
    add(Stream::Lorawan, &LORAWAN, &[Form::Alone], 1, 8);
    add(Stream::Motion, &["acme", "northwind"], &[Form::Lines], 200, 50);
    add(Stream::Lab, &["harbor"], &[Form::Array], 100, 12);
    add(Stream::Turnstile, &["harbor"], &[Form::Alone], 1, 1);
    let mut random = Random::new(seed, 0);
    for i in (1..list.len()).rev() {
        list.swap(i, random.below(i as u64 + 1) as usize);
    }
    // A few arrays break off: the edge refuses them whole. The lab's stay, so that its scripts always fail as often.
    list.iter_mut().filter(|r| r.form == Form::Array && r.stream == Stream::Telemetry).step_by(60).for_each(|r| r.spoiled = true);
    with_repeats(list)
}

/// Every sixteenth request is made once more, eight requests later.
fn with_repeats(list: Vec<Request>) -> Vec<Request> {
    let mut out: Vec<Request> = Vec::with_capacity(list.len() * 17 / 16 + 1);
    let mut due: std::collections::VecDeque<(usize, Request)> = std::collections::VecDeque::new();
    for (i, request) in list.into_iter().enumerate() {
        if i.is_multiple_of(16) && !request.spoiled {
            due.push_back((i + 8, Request { repeat: true, ..request.clone() }));
        }
        out.push(request);
        if due.front().is_some_and(|(at, _)| *at <= i) {
            out.extend(due.pop_front().map(|(_, r)| r));
        }
    }
    out.extend(due.into_iter().map(|(_, r)| r));
    out
}
