"""The wire: tunnel.proto and the code that protoc generates from it (`make protos`)."""
