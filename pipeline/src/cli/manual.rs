//! `tidegate manual`: the manual as it was when this binary was made. Who has the binary alone has no other.

use std::process::ExitCode;

/// Print a part of the manual: settings, definitions, scripts and more.
#[derive(clap::Args)]
pub struct Args {
    /// Which part; without one they are listed.
    topic: Option<Topic>,
}

/// A part of the manual.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Topic {
    /// What Tidegate is, what it guarantees, how events are sent and tables are read
    Start,
    /// Every setting of a configuration, with its default
    Settings,
    /// Every file and field of a folder of definitions, tests of templates included
    Definitions,
    /// Scripts: stages, tools, limits, the library
    Scripts,
    /// Apache Kafka
    Kafka,
    /// ClickHouse, and the rights that its user needs
    Clickhouse,
    /// Buckets of S3, and the rights that are needed
    Objects,
}

impl Topic {
    fn text(self) -> &'static str {
        match self {
            Self::Start => include_str!("../../../README.md"),
            Self::Settings => include_str!("../../../tidegate.example.toml"),
            Self::Definitions => include_str!("../definitions/README.md"),
            Self::Scripts => include_str!("../../../operators/README.md"),
            Self::Kafka => include_str!("../../guides/kafka.md"),
            Self::Clickhouse => include_str!("../../guides/clickhouse.md"),
            Self::Objects => include_str!("../../guides/objects.md"),
        }
    }
}

pub fn main(args: &Args) -> ExitCode {
    if let Some(topic) = args.topic {
        print!("{}", topic.text());
        eprintln!("\nFiles that are named here lie in Tidegate's source; the parts of this manual: tidegate manual");
        return ExitCode::SUCCESS;
    }
    for topic in <Topic as clap::ValueEnum>::value_variants() {
        let Some(value) = clap::ValueEnum::to_possible_value(topic) else { continue };
        println!("tidegate manual {:<12} {}", value.get_name(), value.get_help().map(ToString::to_string).unwrap_or_default());
    }
    ExitCode::SUCCESS
}
