// Package replicas is how agents find the replicas of the controller and of the observer, and connect to them.
//
// Agents watch the replicas' pods instead of asking cluster DNS, which may be behind the policies that they enforce. They verify a replica's
// certificate by its name and by an authority in a ConfigMap that the component alone may write, and authenticate with a projected token.
package replicas
