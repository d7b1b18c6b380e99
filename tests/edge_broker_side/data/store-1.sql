BEGIN TRANSACTION;
CREATE TABLE decision (number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, stored_ms INTEGER NOT NULL, site TEXT, device TEXT, version TEXT, cut TEXT, codec TEXT, policy TEXT, rev INTEGER, sent_ms INTEGER, deadline_ms REAL, reason TEXT, UNIQUE (site, device, rev, sent_ms));
INSERT INTO "decision" VALUES(5,1700000000000,1795738399923,'plant','cam','net','c2','q8','greedy',3,1700000000000,100.0,'because');
CREATE TABLE folded (site TEXT, device TEXT, session INTEGER, outcome TEXT, reason TEXT, frames INTEGER NOT NULL,
 PRIMARY KEY (site, device, session, outcome, reason)) WITHOUT ROWID;
INSERT INTO "folded" VALUES('plant','cam',7,'dropped','full',2);
CREATE TABLE inference (number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, stored_ms INTEGER NOT NULL, site TEXT, device TEXT, version TEXT, cut TEXT, codec TEXT, outcome TEXT, energy_source TEXT, session INTEGER, frame INTEGER, latency_ms REAL, head_ms REAL, encode_ms REAL, network_ms REAL, wait_ms REAL, tail_ms REAL, energy_mj REAL, score REAL, batch INTEGER, sent_bytes INTEGER, label INTEGER, truth INTEGER, reason TEXT, UNIQUE (site, device, session, frame));
INSERT INTO "inference" VALUES(1,1700000000001,1795738399922,'plant','cam','net','c2','q8','edge','modelled',7,1,10.5,0.0,0.0,0.0,0.0,0.0,2.5,NULL,0,100,4,4,'');
INSERT INTO "inference" VALUES(2,1700000000002,1795738399922,'plant','cam','net','c2','q8','fallback','modelled',7,2,90.25,0.0,0.0,0.0,0.0,0.0,0.0,NULL,0,0,NULL,NULL,'timeout');
INSERT INTO "inference" VALUES(3,1700000000003,1795738399922,'plant','cam','net','c2','q8','dropped','modelled',7,3,0.5,0.0,0.0,0.0,0.0,0.0,0.0,NULL,0,0,NULL,NULL,'full');
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "meta" VALUES('next_number',7);
CREATE TABLE presence (site TEXT, name TEXT, role TEXT, session INTEGER, state TEXT, reason TEXT, at_ms INTEGER,
 about TEXT, PRIMARY KEY (site, name, role)) WITHOUT ROWID;
INSERT INTO "presence" VALUES('plant','cam','device',7,'ready','',5,NULL);
CREATE TABLE sessions (site TEXT, device TEXT, session INTEGER, captured INTEGER NOT NULL DEFAULT 0,
 recorded INTEGER NOT NULL DEFAULT 0, trimmed_frame INTEGER NOT NULL DEFAULT 0, seen_ms INTEGER NOT NULL,
 PRIMARY KEY (site, device, session)) WITHOUT ROWID;
INSERT INTO "sessions" VALUES('plant','cam',7,6,3,0,1795738399922);
CREATE TABLE telemetry (number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, stored_ms INTEGER NOT NULL, site TEXT, device TEXT, version TEXT, cut TEXT, codec TEXT, energy_source TEXT, session INTEGER, seq INTEGER, decision_rev INTEGER, in_flight INTEGER, queued INTEGER, estimate_age_ms INTEGER, fps REAL, head_ms REAL, head_ms_per_plan_ms REAL, rtt_ms REAL, uplink_bps REAL, cpu_share REAL, memory_mb REAL, temperature_c REAL, battery_share REAL, power_mw REAL, replayed INTEGER, counters TEXT, UNIQUE (site, device, session, seq));
INSERT INTO "telemetry" VALUES(6,1700000000004,1795738399923,'plant','cam','net','c2','q8','modelled',7,1,3,0,0,NULL,5.0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,'{"late": 2}');
CREATE TABLE totals (site TEXT, device TEXT, outcome TEXT, frames INTEGER NOT NULL,
 PRIMARY KEY (site, device, outcome)) WITHOUT ROWID;
INSERT INTO "totals" VALUES('plant','cam','dropped',1);
INSERT INTO "totals" VALUES('plant','cam','edge',1);
INSERT INTO "totals" VALUES('plant','cam','fallback',1);
CREATE TABLE trimmed (measurement TEXT PRIMARY KEY, rows INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE worker (number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, stored_ms INTEGER NOT NULL, site TEXT, worker TEXT, session INTEGER, sent_ms INTEGER, queued INTEGER, arrived INTEGER, served INTEGER, busy INTEGER, period_ms REAL, utilisation REAL, batch_mean REAL, wait_ms_mean REAL, service_ms TEXT, counters TEXT, UNIQUE (site, worker, session, sent_ms));
CREATE INDEX inference_stored ON inference (stored_ms);
CREATE INDEX telemetry_stored ON telemetry (stored_ms);
CREATE INDEX decision_stored ON decision (stored_ms);
CREATE INDEX worker_stored ON worker (stored_ms);
COMMIT;
PRAGMA user_version = 1;
