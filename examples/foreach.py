"""One model per hyper-parameter on the handwritten digits that ship with scikit-learn; the join picks the best."""

from k8sflow import FlowSpec, Parameter, resources, step


class Digits(FlowSpec):
    """Trains a support vector machine for each value of C, all of them at the same time."""

    seed = Parameter("seed", default=7, help="Splits the data into training and test.")

    @resources(cpu=0.5, memory=1000)
    @step
    def start(self):
        """Load the data once; every branch reads these artifacts."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        images, labels = load_digits(return_X_y=True)
        self.train_x, self.test_x, self.train_y, self.test_y = train_test_split(
            images, labels, test_size=0.4, random_state=self.seed
        )
        self.strengths = [0.001, 0.01, 0.1, 1.0, 10.0]
        self.next(self.train, foreach="strengths")

    @resources(cpu=0.5, memory=1000)
    @step
    def train(self):
        """One branch: its value of C is self.input."""
        from sklearn.svm import SVC

        self.strength = self.input
        self.model = SVC(C=self.strength, gamma=0.001).fit(self.train_x, self.train_y)
        self.accuracy = self.model.score(self.test_x, self.test_y)
        print(f"C={self.strength}: accuracy {self.accuracy:.3f}")
        self.next(self.best)

    @resources(cpu=0.5, memory=1000)
    @step
    def best(self, inputs):
        """Keep the model with the best accuracy on the test images."""
        winner = max(inputs, key=lambda branch: branch.accuracy)
        self.model, self.strength, self.accuracy = winner.model, winner.strength, winner.accuracy
        self.results = {branch.strength: branch.accuracy for branch in inputs}
        self.next(self.end)

    @resources(cpu=0.5, memory=1000)
    @step
    def end(self):
        """Print the winner."""
        print(f"best of {len(self.results)}: C={self.strength} with accuracy {self.accuracy:.3f}")


if __name__ == "__main__":
    Digits()
