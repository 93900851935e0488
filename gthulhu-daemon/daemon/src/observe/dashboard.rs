//! A dashboard of Grafana as JSON (schema 39, Grafana 10 and later): rows of panels, each of which says what it shows
//! and in what unit.

use serde_json::{Value, json};

/// What the numbers of a panel are, by Grafana's names for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A plain number.
    Count,
    /// Of something, in a second.
    PerSecond,
    Seconds,
    Nanoseconds,
    /// Seconds of something in a second: CPUs, or threads that wait.
    SecondsPerSecond,
    /// 0 to 1.
    Share,
    /// 1 is yes.
    Switch,
}

impl Unit {
    fn id(self) -> &'static str {
        match self {
            Self::Count => "short",
            Self::PerSecond => "cps",
            Self::Seconds => "s",
            Self::Nanoseconds => "ns",
            Self::SecondsPerSecond => "suffix: s/s",
            Self::Share => "percentunit",
            Self::Switch => "bool_yes_no",
        }
    }
}

/// How a panel looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Lines over time.
    Lines,
    /// The last value, large.
    Number,
    /// The last values as bars, the largest first.
    Bars,
    /// The last values and their labels.
    Table,
}

/// A panel.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    title: String,
    /// What it shows, and what to think of it.
    about: String,
    unit: Unit,
    look: Look,
    /// Expression and legend.
    queries: Vec<(String, String)>,
    /// Of the 24 columns.
    width: u32,
}

impl Panel {
    pub(crate) fn new(look: Look, unit: Unit, title: impl Into<String>, about: impl Into<String>) -> Self {
        let width = if look == Look::Number { 4 } else { 12 };
        Self { title: title.into(), about: about.into(), unit, look, queries: Vec::new(), width }
    }

    pub(crate) fn query(mut self, expr: impl Into<String>, legend: impl Into<String>) -> Self {
        self.queries.push((expr.into(), legend.into()));
        self
    }

    pub(crate) fn width(self, width: u32) -> Self {
        Self { width, ..self }
    }

    fn height(&self) -> u32 {
        if self.look == Look::Number { 4 } else { 8 }
    }

    fn json(&self, id: usize, x: u32, y: u32) -> Value {
        // Grafana asks for the last value only, or for a range.
        let instant = self.look != Look::Lines;
        let targets = self.queries.iter().zip('A'..).map(|((expr, legend), letter)| {
            json!({
                "refId": letter, "expr": expr, "legendFormat": legend, "instant": instant, "range": !instant,
                "format": if self.look == Look::Table { "table" } else { "time_series" }, "datasource": source(),
            })
        });
        let kind = match self.look {
            Look::Lines => "timeseries",
            Look::Number => "stat",
            Look::Bars => "bargauge",
            Look::Table => "table",
        };
        let custom = match self.look {
            Look::Lines => json!({ "fillOpacity": 8, "showPoints": "never", "spanNulls": false }),
            _ => json!({}),
        };
        json!({
            "id": id, "type": kind, "title": self.title, "description": self.about, "datasource": source(),
            "gridPos": { "x": x, "y": y, "w": self.width, "h": self.height() },
            "fieldConfig": { "defaults": { "unit": self.unit.id(), "min": 0, "custom": custom }, "overrides": [] },
            "options": options(self.look), "targets": targets.collect::<Vec<_>>(),
        })
    }
}

fn options(look: Look) -> Value {
    let last = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
    match look {
        Look::Lines => json!({
            "legend": { "displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"] },
            "tooltip": { "mode": "multi", "sort": "desc" },
        }),
        Look::Number => json!({ "reduceOptions": last, "colorMode": "value", "graphMode": "area" }),
        Look::Bars => json!({ "reduceOptions": last, "orientation": "horizontal", "displayMode": "basic" }),
        Look::Table => json!({ "showHeader": true }),
    }
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// A dashboard.
#[derive(Debug)]
pub(crate) struct Dashboard {
    /// By which Grafana knows it, for ever.
    pub(crate) uid: &'static str,
    pub(crate) title: &'static str,
    pub(crate) about: &'static str,
    /// Name, label and query of what can be chosen.
    pub(crate) variables: Vec<(&'static str, &'static str, &'static str)>,
    /// Under headings.
    pub(crate) rows: Vec<(String, Vec<Panel>)>,
}

impl Dashboard {
    pub(crate) fn json(&self) -> Value {
        let (mut panels, mut y) = (Vec::new(), 0);
        for (title, row) in &self.rows {
            let id = panels.len() + 1;
            panels.push(json!({
                "id": id, "type": "row", "title": title, "collapsed": false, "panels": [],
                "gridPos": { "x": 0, "y": y, "w": 24, "h": 1 },
            }));
            y += 1;
            let (mut x, mut height) = (0, 0);
            for panel in row {
                if x + panel.width > 24 {
                    (x, y, height) = (0, y + height, 0);
                }
                panels.push(panel.json(panels.len() + 1, x, y));
                (x, height) = (x + panel.width, height.max(panel.height()));
            }
            y += height;
        }
        json!({
            "uid": self.uid, "title": self.title, "description": self.about, "schemaVersion": 39, "version": 1,
            "editable": true, "graphTooltip": 1, "refresh": "30s", "tags": ["gthulhu"], "timezone": "browser",
            "time": { "from": "now-1h", "to": "now" }, "links": [], "annotations": { "list": [] },
            "templating": { "list": self.variables() }, "panels": panels,
        })
    }

    fn variables(&self) -> Vec<Value> {
        let mut list = vec![json!({
            "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {},
        })];
        list.extend(self.variables.iter().map(|(name, label, query)| {
            json!({
                "name": name, "label": label, "type": "query", "datasource": source(), "refresh": 2, "sort": 1,
                "query": { "query": query, "refId": name }, "definition": query, "multi": true, "includeAll": true,
                "allValue": ".*", "current": { "text": ["All"], "value": ["$__all"] },
            })
        }));
        list
    }
}
