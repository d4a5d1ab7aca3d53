// Package client is the agent's side of the stream to the controller. It keeps one stream to each replica and sends what the agent has given
// it last: new sandboxes, which policies are in force, and interfaces that cannot be policed.
//
// No call of a Client waits for the network. The Client keeps states, not a queue of messages: a replica that does not read, or is away,
// gets the last state of each thing when it can.
package client
