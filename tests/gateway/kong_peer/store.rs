//! The control plane's database: what Kong's Admin API does with entities (kong/db/dao, kong/api/endpoints.lua).
//! Feeds `admin`; what it exports is what is pushed.

use super::entities::{self, TABLES, Table, dependants, table};
use super::schema::{Object, Refusal, errors, fill, pretty};
use super::values;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use time::OffsetDateTime;
use uuid::Uuid;

/// Entities by kind and id. As with Kong, a list is in the order of the ids, which is no order at all.
#[derive(Default)]
pub struct Store {
    tables: BTreeMap<&'static str, BTreeMap<String, Object>>,
}

/// An entity that others belong to, by the field with which they name it.
pub struct Parent {
    pub field: &'static str,
    pub id: String,
}

/// What a list is asked for.
#[derive(Default)]
pub struct Page {
    pub tags: Option<String>,
    pub size: Option<String>,
    pub offset: Option<String>,
}

fn id_of(object: &Object) -> &str {
    object["id"].as_str().unwrap_or_default()
}

fn refers_to(entity: &Object, field: &str, id: &str) -> bool {
    entity[field]["id"].as_str() == Some(id)
}

impl Store {
    fn rows(&self, table: &Table) -> impl Iterator<Item = &Object> {
        self.tables.get(table.name).into_iter().flat_map(BTreeMap::values)
    }

    /// The entity with this id, or with this value of the field that stands for it.
    pub fn find(&self, table: &Table, key: &str, parent: Option<&Parent>) -> Option<&Object> {
        let is_it = |row: &&Object| match table.key {
            _ if values::is_uuid(key) => id_of(row) == key,
            Some(field) => row[field].as_str() == Some(key),
            None => false,
        };
        let is_child = |row: &&Object| parent.is_none_or(|parent| refers_to(row, parent.field, &parent.id));
        self.rows(table).filter(is_it).find(is_child)
    }

    /// PUT: in place of the entity, or a new one; what the URL says goes before what the body says.
    pub fn put(
        &mut self,
        table: &'static Table,
        key: &str,
        mut body: Object,
        parent: Option<&Parent>,
    ) -> Result<Value, Refusal> {
        // Groups have the same name with many consumers.
        let scope = parent.filter(|_| table.name == "acls");
        let known = self.find(table, key, scope).cloned();
        match table.key {
            _ if values::is_uuid(key) => body.insert("id".to_owned(), json!(key)),
            Some(field) => body.insert(field.to_owned(), json!(key)),
            None => {
                let id = json!({ "id": key });
                let message = format!("invalid primary key: '{}'", pretty(&id));
                return Err(Refusal::numbered(400, 1, "invalid primary key", &message, id));
            }
        };
        self.save(table, body, known, parent)
    }

    /// POST: a new entity.
    pub fn post(&mut self, table: &'static Table, body: Object, parent: Option<&Parent>) -> Result<Value, Refusal> {
        if let Some(known) = body.get("id").and_then(Value::as_str).and_then(|id| self.find(table, id, None)) {
            let id = json!({ "id": id_of(known) });
            let message = format!("primary key violation on key '{}'", pretty(&id));
            return Err(Refusal::numbered(400, 3, "primary key violation", &message, id));
        }
        self.save(table, body, None, parent)
    }

    /// PATCH: some fields of an entity that is there.
    pub fn patch(&mut self, table: &'static Table, id: &str, body: Object) -> Result<Value, Refusal> {
        let known = self.find(table, id, None).cloned().ok_or_else(Refusal::not_found)?;
        let mut merged = known.clone();
        merge(&mut merged, body);
        self.save(table, merged, Some(known), None)
    }

    fn save(
        &mut self,
        table: &'static Table,
        mut entity: Object,
        known: Option<Object>,
        parent: Option<&Parent>,
    ) -> Result<Value, Refusal> {
        if let Some(parent) = parent {
            entity.insert(parent.field.to_owned(), json!({ "id": parent.id }));
        }
        prepare(table, &mut entity);
        self.resolve(table, &mut entity)?;
        fill(table.fields, &mut entity);
        let mut wrong = errors(table.fields, &entity);
        if wrong.is_empty() {
            let mut words = Vec::new();
            (table.rules)(&entity, &mut words, &mut wrong);
            if !words.is_empty() {
                wrong.insert("@entity".to_owned(), json!(words));
            }
        }
        if !wrong.is_empty() {
            return Err(Refusal::violation(wrong));
        }
        stamp(table, &mut entity, known.as_ref());
        self.check_references(table, &entity)?;
        self.check_unique(table, &entity)?;
        let id = id_of(&entity).to_owned();
        if table.name == "certificates" {
            self.save_snis(&id, entity.remove("snis").unwrap_or_default())?;
        }
        self.tables.entry(table.name).or_default().insert(id.clone(), entity);
        Ok(self.shown(table, &self.tables[table.name][&id]))
    }

    /// Other entities may be named by what stands for their id; Kong keeps the id.
    fn resolve(&self, table: &Table, entity: &mut Object) -> Result<(), Refusal> {
        let references: Vec<_> = table.references().collect();
        for (field, to) in references {
            let Some(Value::Object(reference)) = entity.get(field) else { continue };
            let Some(key) = entities::table(to).key else { continue };
            let Some(name) = reference.get(key).and_then(Value::as_str) else { continue };
            let Some(found) = self.find(entities::table(to), name, None) else {
                let given = json!({ (key): name });
                let words = format!(
                    "the foreign key cannot be resolved with '{}' for an existing '{to}' entity",
                    pretty(&given)
                );
                let message = format!("foreign key unresolved ({field}.{key}: {words})");
                let fields = json!({ (field): { (key): words } });
                return Err(Refusal::numbered(400, 13, "foreign keys unresolved", &message, fields));
            };
            let id = json!({ "id": id_of(found) });
            entity.insert(field.to_owned(), id);
        }
        Ok(())
    }

    fn check_references(&self, table: &Table, entity: &Object) -> Result<(), Refusal> {
        for (field, to) in table.references() {
            let Some(id) = entity[field]["id"].as_str() else { continue };
            if self.find(entities::table(to), id, None).is_none() {
                let key = pretty(&entity[field]);
                let message = format!("the foreign key '{key}' does not reference an existing '{to}' entity.");
                let fields = json!({ (field): entity[field] });
                return Err(Refusal::numbered(400, 4, "foreign key violation", &message, fields));
            }
        }
        Ok(())
    }

    fn check_unique(&self, table: &Table, entity: &Object) -> Result<(), Refusal> {
        let others = || self.rows(table).filter(|row| row["id"] != entity["id"]);
        for field in table.unique.iter().copied().filter(|field| !entity[*field].is_null()) {
            if others().any(|row| row[field] == entity[field]) {
                return Err(Refusal::unique(json!({ (field): entity[field] })));
            }
        }
        let fields = table.unique_together;
        if !fields.is_empty() && others().any(|row| fields.iter().all(|field| row[*field] == entity[*field])) {
            let values = fields.iter().map(|field| ((*field).to_owned(), entity[*field].clone()));
            return Err(Refusal::unique(Value::Object(values.collect())));
        }
        Ok(())
    }

    /// The names of a certificate: all of them, or nothing to leave them as they are.
    fn save_snis(&mut self, certificate: &str, names: Value) -> Result<(), Refusal> {
        let Value::Array(names) = names else { return Ok(()) };
        let snis = table("snis");
        for name in names.iter().filter_map(Value::as_str) {
            let known = self.find(snis, name, None);
            if let Some(other) = known.filter(|known| !refers_to(known, "certificate", certificate)) {
                let other = other["certificate"]["id"].as_str().unwrap_or_default();
                let words = format!("{name} already associated with existing certificate '{other}'");
                return Err(Refusal::violation(Object::from_iter([("snis".to_owned(), json!(words))])));
            }
        }
        let rows = self.tables.entry("snis").or_default();
        rows.retain(|_, sni| !refers_to(sni, "certificate", certificate) || names.contains(&sni["name"]));
        for name in names {
            if !rows.values().any(|sni| sni["name"] == name) {
                let reference = json!({ "id": certificate });
                let mut sni = Object::from_iter([("name".to_owned(), name), ("certificate".to_owned(), reference)]);
                fill(snis.fields, &mut sni);
                stamp(snis, &mut sni, None);
                rows.insert(id_of(&sni).to_owned(), sni);
            }
        }
        Ok(())
    }

    /// An entity as the Admin API shows it.
    pub fn shown(&self, table: &Table, entity: &Object) -> Value {
        let mut entity = entity.clone();
        if table.name == "certificates" {
            let names = self.rows(entities::table("snis"));
            let names = names.filter(|sni| refers_to(sni, "certificate", id_of(&entity)));
            let mut names: Vec<_> = names.filter_map(|sni| sni["name"].as_str()).collect();
            names.sort_unstable();
            entity.insert("snis".to_owned(), json!(names));
        }
        Value::Object(entity)
    }

    /// DELETE, with what belongs to it; refused while something else needs it.
    pub fn delete(&mut self, table: &'static Table, id: &str) -> Result<(), Refusal> {
        for (name, field, goes_too) in dependants(table.name) {
            let dependant = entities::table(name);
            if !goes_too && self.rows(dependant).any(|row| refers_to(row, field, id)) {
                let message = format!("an existing '{name}' entity references this '{}' entity", table.name);
                let fields = json!({ "@referenced_by": name });
                return Err(Refusal::numbered(400, 4, "foreign key violation", &message, fields));
            }
        }
        for (name, field, _) in dependants(table.name).iter().filter(|(_, _, goes_too)| *goes_too) {
            if let Some(rows) = self.tables.get_mut(name) {
                rows.retain(|_, row| !refers_to(row, field, id));
            }
        }
        if let Some(rows) = self.tables.get_mut(table.name) {
            rows.remove(id);
        }
        Ok(())
    }

    /// A page of a list; `url` is what comes before the question mark of the next one's.
    pub fn page(&self, table: &Table, parent: Option<&Parent>, page: &Page, url: &str) -> Result<Value, Refusal> {
        let has_tags = tag_filter(page.tags.as_deref())?;
        let rows = self.rows(table);
        let rows = rows.filter(|row| parent.is_none_or(|parent| refers_to(row, parent.field, &parent.id)));
        let rows: Vec<_> = rows.filter(|row| has_tags(row)).map(|row| self.shown(table, row)).collect();
        paged(rows, page, url)
    }

    /// Names of the plugins that are configured.
    pub fn plugins(&self) -> Vec<String> {
        let mut names: Vec<_> = self.rows(table("plugins")).filter_map(|row| row["name"].as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(str::to_owned).collect()
    }

    /// What data planes get: other entities are named by their id alone.
    pub fn export(&self) -> Value {
        let mut config = Object::new();
        config.insert("_format_version".to_owned(), json!("3.0"));
        config.insert("_transform".to_owned(), json!(false));
        for table in TABLES {
            let flat = |row: &Object| {
                let mut row = row.clone();
                for (field, _) in table.references() {
                    row[field] = row[field]["id"].take();
                }
                Value::Object(row)
            };
            let rows: Vec<_> = self.rows(table).map(flat).collect();
            if !rows.is_empty() {
                config.insert(table.name.to_owned(), Value::Array(rows));
            }
        }
        Value::Object(config)
    }
}

/// What Kong works out before it looks at the fields.
fn prepare(table: &Table, entity: &mut Object) {
    let text = |entity: &Object, name: &str| entity.get(name).and_then(Value::as_str).map(str::to_owned);
    match table.name {
        "services" => {
            let Some(url) = entity.remove("url").and_then(|url| url::Url::parse(url.as_str()?).ok()) else { return };
            entity.insert("protocol".to_owned(), json!(url.scheme()));
            entity.insert("host".to_owned(), json!(url.host_str()));
            entity.insert("port".to_owned(), json!(url.port_or_known_default()));
            entity.insert("path".to_owned(), json!(Some(url.path()).filter(|path| *path != "/")));
        }
        "targets" => {
            if let Some((host, None)) = text(entity, "target").as_deref().and_then(values::host_and_port) {
                entity.insert("target".to_owned(), json!(format!("{host}:8000")));
            }
        }
        "keyauth_credentials" if entity.get("key").is_none_or(Value::is_null) => {
            entity.insert("key".to_owned(), json!(Uuid::new_v4().simple().to_string()));
        }
        "ca_certificates" => {
            let cert = text(entity, "cert").unwrap_or_default();
            if let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(cert.as_bytes()) {
                entity.insert("cert_digest".to_owned(), json!(hex::encode(Sha256::digest(&pem.contents))));
            }
        }
        _ => {}
    }
}

fn stamp(table: &Table, entity: &mut Object, known: Option<&Object>) {
    let now = OffsetDateTime::now_utc();
    // Targets alone have fractions of seconds.
    let now = match table.name {
        "targets" => json!((now.unix_timestamp_nanos() / 1_000_000) as f64 / 1000.0),
        _ => json!(now.unix_timestamp()),
    };
    if let Some(known) = known {
        entity.insert("id".to_owned(), known["id"].clone());
        entity.insert("created_at".to_owned(), known["created_at"].clone());
    }
    for (field, value) in [("id", json!(Uuid::new_v4().to_string())), ("created_at", now.clone())] {
        if entity.get(field).is_none_or(Value::is_null) {
            entity.insert(field.to_owned(), value);
        }
    }
    if entity.contains_key("updated_at") {
        entity.insert("updated_at".to_owned(), now);
    }
}

fn merge(into: &mut Object, from: Object) {
    for (name, value) in from {
        match (into.get_mut(&name), value) {
            (Some(Value::Object(inner)), Value::Object(value)) if !inner.contains_key("id") => merge(inner, value),
            (_, value) => {
                into.insert(name, value);
            }
        }
    }
}

/// `a,b` asks for both tags, `a/b` for one of them.
fn tag_filter(tags: Option<&str>) -> Result<impl Fn(&Object) -> bool, Refusal> {
    let asked: Vec<String> = tags.into_iter().flat_map(|tags| tags.split([',', '/'])).map(str::to_owned).collect();
    let is_mixed = tags.is_some_and(|tags| tags.contains(',') && tags.contains('/'));
    if is_mixed || asked.iter().any(String::is_empty) {
        let words = "invalid filter syntax";
        let message = format!("invalid option (tags: {words})");
        let mut refusal = Refusal::numbered(400, 11, "invalid options", &message, Value::Null);
        refusal.body["options"] = json!({ "tags": words });
        return Err(refusal);
    }
    let any = tags.is_some_and(|tags| tags.contains('/'));
    Ok(move |row: &Object| {
        let has = |tag: &String| row["tags"].as_array().is_some_and(|tags| tags.contains(&json!(tag)));
        asked.is_empty() || if any { asked.iter().any(has) } else { asked.iter().all(has) }
    })
}

/// One page of what is in the order of its ids.
pub fn paged(mut rows: Vec<Value>, page: &Page, url: &str) -> Result<Value, Refusal> {
    let size = match page.size.as_deref().map(str::parse::<usize>) {
        None => 100,
        Some(Ok(size @ 1..=1000)) => size,
        Some(Ok(_)) => return Err(invalid_size("size must be an integer between 1 and 1000")),
        Some(Err(_)) => return Err(invalid_size("size must be a number")),
    };
    if let Some(offset) = &page.offset {
        let start = STANDARD.decode(offset).ok().and_then(|json| serde_json::from_slice::<[String; 1]>(&json).ok());
        let Some([start]) = start else {
            let message = format!("'{offset}' is not a valid offset: bad base64 encoding");
            return Err(Refusal::numbered(400, 7, "invalid offset", &message, Value::Null));
        };
        rows.retain(|row| row["id"].as_str() >= Some(start.as_str()));
    }
    let next = rows.get(size).map(|row| STANDARD.encode(json!([row["id"]]).to_string()));
    rows.truncate(size);
    let Some(next) = next else { return Ok(json!({ "data": rows, "next": null })) };
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("offset", &next);
    if let Some(tags) = &page.tags {
        query.append_pair("tags", tags);
    }
    if let Some(size) = &page.size {
        query.append_pair("size", size);
    }
    Ok(json!({ "data": rows, "offset": next, "next": format!("{url}?{}", query.finish()) }))
}

fn invalid_size(message: &str) -> Refusal {
    Refusal::numbered(400, 9, "invalid size", message, Value::Null)
}
