// Package brokers starts real message brokers on loopback for tests and measurements: a [Cluster] is a few nodes that share one store or
// are one cluster, each [Node] a process of its own that can be killed, frozen, stopped and started again.
//
// Kinds are the names that [Kinds] returns; [Missing] says whether the software of a kind is installed and what to do if not. A node is up
// when it answers CONNECT with CONNECTED, or has said in its log that it stands by: an open port proves neither. Every cluster has its own
// directory and ports, every process is ended by its pid, and the kernel ends them when the program that started them dies.
//
// What it does not do: break connections (that is for whoever stands between client and broker), and keep data after Close.
package brokers
