//! Who may read which rows: a role for each tenant, held to its own rows by the server in every table of the database, views and
//! tables that come later included.

use super::{ClickHouseSink, identifier, literal};
use tidegate_schemas::sink::SinkError;

/// The statements, each of which may be carried out again. Policies of one table add up: nobody sees any row, a tenant's role
/// those of its tenant, the sink's user all of them.
pub fn statements(database: &str, sink_user: &str, tenants: &[String]) -> Vec<String> {
    let all = format!("{}.*", identifier(database));
    let policy = |name: &str, condition: &str, whom: &str| {
        format!("CREATE ROW POLICY IF NOT EXISTS {} ON {all} FOR SELECT USING {condition} AS PERMISSIVE TO {whom}", identifier(name))
    };
    // The sink first: it must not lose sight of its rows in between.
    let mut statements = vec![policy("tidegate sink", "1", &identifier(sink_user)), policy("tidegate nobody", "0", "ALL")];
    for tenant in tenants {
        let role = identifier(&role(tenant));
        statements.push(format!("CREATE ROLE IF NOT EXISTS {role}"));
        statements.push(format!("GRANT SELECT ON {all} TO {role}"));
        statements.push(policy(&format!("tidegate tenant {tenant}"), &condition(tenant), &role));
    }
    statements
}

/// The role of a tenant's readers.
pub fn role(tenant: &str) -> String {
    format!("tidegate_{tenant}")
}

/// What holds for a tenant's rows alone.
pub fn condition(tenant: &str) -> String {
    format!("tenant = {}", literal(tenant))
}

impl ClickHouseSink {
    /// Carries statements out in order.
    pub async fn carry_out(&self, statements: &[String]) -> Result<(), SinkError> {
        for sql in statements {
            self.http.run(sql).await.map_err(|f| f.of(format!("carrying out {sql}")))?;
        }
        Ok(())
    }
}
