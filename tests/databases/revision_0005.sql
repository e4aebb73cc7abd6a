-- A record of revision 0005 with rows in every table, as sqlite3's iterdump wrote it.
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0005');
CREATE TABLE "attempt" (
	id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	worker VARCHAR(255) NOT NULL, 
	environment JSON NOT NULL, 
	started_at DOUBLE NOT NULL, 
	finished_at DOUBLE, 
	outcome VARCHAR(16), 
	reason TEXT, 
	traceback TEXT, 
	failure VARCHAR(16), 
	CONSTRAINT pk_attempt PRIMARY KEY (id), 
	CONSTRAINT uq_attempt_trial_id_number UNIQUE (trial_id, number), 
	CONSTRAINT ck_attempt_outcome CHECK (outcome IS NULL OR outcome IN ('COMPLETE', 'PAUSED', 'DIVERGED', 'FAILED', 'LOST', 'PREEMPTED', 'CANCELLED')), 
	CONSTRAINT fk_attempt_trial_id FOREIGN KEY(trial_id) REFERENCES trial (id), 
	CONSTRAINT ck_attempt_ended CHECK ((outcome IS NULL) = (finished_at IS NULL)), 
	CONSTRAINT ck_attempt_failure CHECK (failure IS NULL OR failure IN ('exception', 'host memory', 'gpu memory', 'diverged', 'disk', 'preempted', 'lost', 'hang'))
);
INSERT INTO "attempt" VALUES(1,1,1,'w','{"torch":"2"}',1.7953979321800141335e+09,1.79539793218198561667e+09,'COMPLETE',NULL,NULL,NULL);
INSERT INTO "attempt" VALUES(2,2,1,'w','{"torch":"2"}',1.79539793218399739262e+09,1.79539793218600893017e+09,'DIVERGED','nan',NULL,'diverged');
INSERT INTO "attempt" VALUES(3,3,1,'w','{"torch":"2"}',1.79539793218600893017e+09,1.79539793218798041348e+09,'FAILED','ValueError: no','Traceback','exception');
INSERT INTO "attempt" VALUES(4,4,1,'w','{"torch":"2"}',1.79539793218798041348e+09,1.79539793219099783894e+09,'LOST','worker w was lost: its lease ran out',NULL,'lost');
INSERT INTO "attempt" VALUES(5,4,2,'w','{"torch":"2"}',1.79539793219099783894e+09,1.79539793219200372693e+09,'PREEMPTED',NULL,NULL,'preempted');
INSERT INTO "attempt" VALUES(6,4,3,'w','{"torch":"2"}',1.79539793219401550288e+09,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE checkpoint (
	id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	rung INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	path TEXT NOT NULL, 
	sha256 VARCHAR(64), 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_checkpoint PRIMARY KEY (id), 
	CONSTRAINT fk_checkpoint_trial_id FOREIGN KEY(trial_id) REFERENCES trial (id), 
	CONSTRAINT uq_checkpoint_trial_id_rung UNIQUE (trial_id, rung)
);
INSERT INTO "checkpoint" VALUES(1,1,0,1,'aspects/trial-0/attempt-1','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',1.79539793218399739262e+09);
CREATE TABLE event (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	study_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	attempt INTEGER, 
	kind VARCHAR(32) NOT NULL, 
	detail JSON NOT NULL, 
	at DOUBLE NOT NULL, 
	CONSTRAINT fk_event_study_id FOREIGN KEY(study_id) REFERENCES study (id), 
	CONSTRAINT fk_event_trial_id FOREIGN KEY(trial_id) REFERENCES trial (id)
);
INSERT INTO "event" VALUES(1,1,NULL,NULL,'created','{"hours":null,"trials":7}',1.79539793216899037356e+09);
INSERT INTO "event" VALUES(2,1,NULL,NULL,'driver acquired','{"epoch":1,"owner":"host:1"}',1.79539793217100191119e+09);
INSERT INTO "event" VALUES(3,1,1,NULL,'enqueued','{"label":"<first>","origin":"model"}',1.79539793217498517031e+09);
INSERT INTO "event" VALUES(4,1,2,NULL,'enqueued','{"origin":"model"}',1.79539793217498517031e+09);
INSERT INTO "event" VALUES(5,1,3,NULL,'enqueued','{"origin":"model"}',1.79539793217498517031e+09);
INSERT INTO "event" VALUES(6,1,4,NULL,'enqueued','{"origin":"model"}',1.79539793217498517031e+09);
INSERT INTO "event" VALUES(7,1,5,NULL,'enqueued','{"origin":"model"}',1.79539793217498517031e+09);
INSERT INTO "event" VALUES(8,1,6,NULL,'enqueued','{"origin":"model"}',1.79539793217498517031e+09);
INSERT INTO "event" VALUES(9,1,7,NULL,'enqueued','{"origin":"model"}',1.79539793217498517031e+09);
INSERT INTO "event" VALUES(10,1,1,1,'leased','{"worker":"w"}',1.7953979321800141335e+09);
INSERT INTO "event" VALUES(11,1,1,1,'reported','{"state":"COMPLETE","worker":"w"}',1.79539793218399739262e+09);
INSERT INTO "event" VALUES(12,1,2,1,'leased','{"worker":"w"}',1.79539793218399739262e+09);
INSERT INTO "event" VALUES(13,1,2,1,'diverged','{"failure":"diverged","reason":"nan","state":"DIVERGED","worker":"w"}',1.79539793218600893017e+09);
INSERT INTO "event" VALUES(14,1,3,1,'leased','{"worker":"w"}',1.79539793218600893017e+09);
INSERT INTO "event" VALUES(15,1,3,1,'failed','{"failure":"exception","reason":"ValueError: no","state":"QUEUED","worker":"w"}',1.79539793218798041348e+09);
INSERT INTO "event" VALUES(16,1,4,1,'leased','{"worker":"w"}',1.79539793218798041348e+09);
INSERT INTO "event" VALUES(17,1,4,1,'lost','{"failure":"lost","reason":"worker w was lost: its lease ran out","state":"QUEUED","worker":"w"}',1.79539793219099783894e+09);
INSERT INTO "event" VALUES(18,1,4,2,'leased','{"worker":"w"}',1.79539793219099783894e+09);
INSERT INTO "event" VALUES(19,1,4,2,'handed back','{"failure":"preempted","state":"QUEUED","worker":"w"}',1.79539793219200372693e+09);
INSERT INTO "event" VALUES(20,1,7,NULL,'cancelled','{}',1.79539793219300961493e+09);
INSERT INTO "event" VALUES(21,1,4,3,'leased','{"worker":"w"}',1.79539793219401550288e+09);
INSERT INTO "event" VALUES(22,1,NULL,NULL,'front','{"hypervolume":0.25,"members":1}',1.79539793219498109823e+09);
INSERT INTO "event" VALUES(23,1,NULL,NULL,'driver released','{"epoch":1}',1.79539793219598674779e+09);
CREATE TABLE front (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	hypervolume DOUBLE NOT NULL, 
	completed INTEGER NOT NULL, 
	seconds DOUBLE NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_front PRIMARY KEY (id), 
	CONSTRAINT fk_front_study_id FOREIGN KEY(study_id) REFERENCES study (id)
);
INSERT INTO "front" VALUES(1,1,0.25,1,2.0,1.79539793219401550288e+09);
CREATE TABLE front_member (
	front_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	CONSTRAINT pk_front_member PRIMARY KEY (front_id, position), 
	CONSTRAINT fk_front_member_front_id FOREIGN KEY(front_id) REFERENCES front (id), 
	CONSTRAINT fk_front_member_trial_id FOREIGN KEY(trial_id) REFERENCES trial (id)
);
INSERT INTO "front_member" VALUES(1,0,1);
CREATE TABLE "measurement" (
	id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	rung INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	"values" JSON NOT NULL, 
	curve JSON NOT NULL, 
	correct TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	details JSON NOT NULL, 
	CONSTRAINT pk_measurement PRIMARY KEY (id), 
	CONSTRAINT fk_measurement_trial_id FOREIGN KEY(trial_id) REFERENCES trial (id), 
	CONSTRAINT uq_measurement_trial_id_rung UNIQUE (trial_id, rung)
);
INSERT INTO "measurement" VALUES(1,1,0,1,'{"accuracy":0.75,"evaluate_seconds":0.5,"loss":0.5,"train_seconds":1.0,"trainable_parameters":32}','[[1,2.0],[2,1.0]]','101',1.79539793218299150463e+09,'{}');
CREATE TABLE probe (
	id INTEGER NOT NULL, 
	name VARCHAR(128) NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	spec JSON NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	created_at DOUBLE NOT NULL, 
	CONSTRAINT pk_probe PRIMARY KEY (id), 
	CONSTRAINT uq_probe_name UNIQUE (name), 
	CONSTRAINT ck_probe_kind CHECK (kind IN ('importance', 'selection'))
);
INSERT INTO "probe" VALUES(1,'kept','importance','{"kept":1}','kept',1.0);
CREATE TABLE study (
	id INTEGER NOT NULL, 
	name VARCHAR(128) NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	spec JSON NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	trials INTEGER NOT NULL, 
	hours DOUBLE, 
	next_number INTEGER NOT NULL, 
	driver VARCHAR(255), 
	driver_epoch INTEGER NOT NULL, 
	driver_expires_at DOUBLE, 
	created_at DOUBLE NOT NULL, device_hours DOUBLE, 
	CONSTRAINT pk_study PRIMARY KEY (id), 
	CONSTRAINT uq_study_name UNIQUE (name), 
	CONSTRAINT ck_study_state CHECK (state IN ('OPEN', 'STOPPED')), 
	CONSTRAINT ck_study_driver_lease CHECK ((driver IS NULL) = (driver_expires_at IS NULL))
);
INSERT INTO "study" VALUES(1,'aspects','OPEN','{"backbone":{"family":"bert","head_count":0,"head_size":0,"hidden_size":8,"intermediate_size":0,"key_value_head_count":0,"layers":[[{"bias":true,"in_features":8,"out_features":8,"path":"encoder.layer.0.attention.self.query","role":"query","transposed":false},{"bias":true,"in_features":8,"out_features":8,"path":"encoder.layer.0.attention.self.key","role":"key","transposed":false},{"bias":true,"in_features":8,"out_features":8,"path":"encoder.layer.0.attention.self.value","role":"value","transposed":false},{"bias":true,"in_features":8,"out_features":8,"path":"encoder.layer.0.attention.output.dense","role":"output","transposed":false},{"bias":true,"in_features":8,"out_features":16,"path":"encoder.layer.0.intermediate.dense","role":"up","transposed":false},{"bias":true,"in_features":16,"out_features":8,"path":"encoder.layer.0.output.dense","role":"down","transposed":false}],[{"bias":true,"in_features":8,"out_features":8,"path":"encoder.layer.1.attention.self.query","role":"query","transposed":false},{"bias":true,"in_features":8,"out_features":8,"path":"encoder.layer.1.attention.self.key","role":"key","transposed":false},{"bias":true,"in_features":8,"out_features":8,"path":"encoder.layer.1.attention.self.value","role":"value","transposed":false},{"bias":true,"in_features":8,"out_features":8,"path":"encoder.layer.1.attention.output.dense","role":"output","transposed":false},{"bias":true,"in_features":8,"out_features":16,"path":"encoder.layer.1.intermediate.dense","role":"up","transposed":false},{"bias":true,"in_features":16,"out_features":8,"path":"encoder.layer.1.output.dense","role":"down","transposed":false}]],"name":"tiny","norms":[],"parameter_count":3072,"refusals":[]},"budget":{"parameters":512,"text":"512"},"control_learning_rate":0.001,"environment":{},"fidelity":{"batch_size":4,"max_length":16,"steps":2},"hours":null,"initial_count":2,"metric":"accuracy","model":{"pooling":"mean","sha256":"0000000000000000000000000000000000000000000000000000000000000000","source":"tiny"},"name":"aspects","objectives":[{"direction":"maximise","name":"accuracy"},{"direction":"minimise","name":"trainable_parameters"}],"proposer":"random","quality_floor":0.5,"schema":"autopeft.study/1","seed":0,"space":{"layers":"each","learning_rate":{"high":0.01,"low":0.0001},"modules":[{"ranks":[0,1,2,4,8,16,32],"sites":["query","value"]},{"ranks":[0,1,2,4,8,16,32],"sites":["key","output"]},{"ranks":[0,1,2,4,8,16,32],"sites":["up","down"]}],"name":"layerwise","scaling":2.0,"schema":"autopeft.space/1"},"task":{"source":"aspects"},"task_name":"aspects","trials":7}','e48ddf6c9cba40fe2621699a2a839930c058eb5ce32c8f002dbfd341eeb3db46',7,1.0,7,NULL,1,NULL,1.79539793216899037356e+09,1.0);
CREATE TABLE trial (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	configuration JSON NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	replicate INTEGER NOT NULL, 
	origin VARCHAR(16) NOT NULL, 
	label TEXT, 
	state VARCHAR(16) NOT NULL, 
	rung INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	priority INTEGER NOT NULL, 
	not_before DOUBLE NOT NULL, 
	owner VARCHAR(255), 
	expires_at DOUBLE, 
	cancel_requested BOOLEAN NOT NULL, 
	failures INTEGER NOT NULL, 
	lost INTEGER NOT NULL, 
	preempted INTEGER NOT NULL, 
	error TEXT, 
	created_at DOUBLE NOT NULL, 
	finished_at DOUBLE, 
	CONSTRAINT pk_trial PRIMARY KEY (id), 
	CONSTRAINT fk_trial_study_id FOREIGN KEY(study_id) REFERENCES study (id), 
	CONSTRAINT uq_trial_study_id_number UNIQUE (study_id, number), 
	CONSTRAINT uq_trial_study_id_digest_replicate UNIQUE (study_id, digest, replicate), 
	CONSTRAINT ck_trial_state CHECK (state IN ('QUEUED', 'RUNNING', 'PAUSED', 'COMPLETE', 'DIVERGED', 'FAILED', 'QUARANTINED', 'CANCELLED')), 
	CONSTRAINT ck_trial_running_is_leased CHECK ((state = 'RUNNING' AND owner IS NOT NULL AND expires_at IS NOT NULL) OR (state <> 'RUNNING' AND owner IS NULL AND expires_at IS NULL))
);
INSERT INTO "trial" VALUES(1,1,0,'{"layers":[{"query":{"lora":{"alpha":2.0,"rank":1}}},{"query":{"lora":{"alpha":2.0,"rank":1}}}],"schema":"autopeft.configuration/1","training":{"learning_rate":0.001}}','b054b8383f4cebe3fc6093e6e36b1b9b512db680fd1de95cc3b9adba2cd06888',0,'model','<first>','COMPLETE',1,1,0,0.0,NULL,NULL,0,0,0,0,NULL,1.79539793217401957509e+09,1.79539793218198561667e+09);
INSERT INTO "trial" VALUES(2,1,1,'{"layers":[{"query":{"lora":{"alpha":2.0,"rank":1}}},{"query":{"lora":{"alpha":2.0,"rank":1}}}],"schema":"autopeft.configuration/1","training":{"learning_rate":0.001001}}','a169adec107dfd7533d18d52652b63796915bce8ec099e171d21b4eb0934cdd5',0,'model',NULL,'DIVERGED',0,1,0,0.0,NULL,NULL,0,0,0,0,'nan',1.79539793217401957509e+09,1.79539793218600893017e+09);
INSERT INTO "trial" VALUES(3,1,2,'{"layers":[{"query":{"lora":{"alpha":2.0,"rank":1}}},{"query":{"lora":{"alpha":2.0,"rank":1}}}],"schema":"autopeft.configuration/1","training":{"learning_rate":0.001002}}','e6356a851f39dd2525be24fcac287f62ef47653d115ca5e437c45102cbdb478c',0,'model',NULL,'QUEUED',0,1,0,1.79539793418701481815e+09,NULL,NULL,0,1,0,0,'ValueError: no
Traceback',1.79539793217401957509e+09,NULL);
INSERT INTO "trial" VALUES(4,1,3,'{"layers":[{"query":{"lora":{"alpha":2.0,"rank":1}}},{"query":{"lora":{"alpha":2.0,"rank":1}}}],"schema":"autopeft.configuration/1","training":{"learning_rate":0.001003}}','a46ad25a2901688feb703ed57aa1947c8ce7fee3ab4f060c45edf123352c84fd',0,'model',NULL,'RUNNING',0,3,0,1.79539793219099783894e+09,'w',1.79540153219300961497e+09,0,0,1,1,NULL,1.79539793217401957509e+09,NULL);
INSERT INTO "trial" VALUES(5,1,4,'{"layers":[{"query":{"lora":{"alpha":2.0,"rank":1}}},{"query":{"lora":{"alpha":2.0,"rank":1}}}],"schema":"autopeft.configuration/1","training":{"learning_rate":0.001004}}','489783c37235a0be8aea3f4e34a94a7413068d32598ace559be4870b94b0eb4c',0,'model',NULL,'QUEUED',0,0,0,0.0,NULL,NULL,0,0,0,0,NULL,1.79539793217401957509e+09,NULL);
INSERT INTO "trial" VALUES(6,1,5,'{"layers":[{"query":{"lora":{"alpha":2.0,"rank":1}}},{"query":{"lora":{"alpha":2.0,"rank":1}}}],"schema":"autopeft.configuration/1","training":{"learning_rate":0.001005}}','c608ec11250063abd9bfc252b223004e74b98346f7a61a147899fec8c91dccc5',0,'model',NULL,'QUEUED',0,0,0,0.0,NULL,NULL,0,0,0,0,NULL,1.79539793217401957509e+09,NULL);
INSERT INTO "trial" VALUES(7,1,6,'{"layers":[{"query":{"lora":{"alpha":2.0,"rank":1}}},{"query":{"lora":{"alpha":2.0,"rank":1}}}],"schema":"autopeft.configuration/1","training":{"learning_rate":0.001006}}','199a13cd71e05ff613e2b8d2206043e6e0f0e8c463058b3d07e3577fd3bcfa1b',0,'model',NULL,'CANCELLED',0,0,0,0.0,NULL,NULL,0,0,0,0,NULL,1.79539793217401957509e+09,1.79539793219300961493e+09);
CREATE TABLE worker (
	name VARCHAR(255) NOT NULL, 
	host VARCHAR(255) NOT NULL, 
	device VARCHAR(64) NOT NULL, 
	pid INTEGER NOT NULL, 
	environment JSON NOT NULL, 
	started_at DOUBLE NOT NULL, 
	seen_at DOUBLE NOT NULL, 
	CONSTRAINT pk_worker PRIMARY KEY (name)
);
INSERT INTO "worker" VALUES('w','host','cpu',1,'{"torch":"2"}',1.79539793217599105831e+09,1.79539793219300961493e+09);
CREATE INDEX ix_trial_claim ON trial (study_id, priority DESC, number) WHERE state = 'QUEUED';
CREATE INDEX ix_trial_expiry ON trial (expires_at) WHERE state = 'RUNNING';
CREATE INDEX ix_front_study_id ON front (study_id);
CREATE INDEX ix_event_study_id_id ON event (study_id, id);
CREATE TRIGGER event_is_append_only_update BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER event_is_append_only_delete BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('event',23);
COMMIT;
