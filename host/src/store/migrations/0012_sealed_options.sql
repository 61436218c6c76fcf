-- Values of a change's options of which nobody says that they are not secret.
ALTER TABLE operations ADD COLUMN sealed_options {bytes};
